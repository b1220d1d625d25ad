"""Asks an image's own interpreter where it would import a package from.

Starts a container without network. Nothing of the project is run: only the top-level package is
looked up, with what the interpreter and its site-packages do at every start.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.running import interpreters, runner
from bundler.artifacts.image.image_import_path import RunsAs
from bundler.errors import ToolFailed

# Which interpreter runs, and what determines its import paths.
_DECIDING = ("PATH", "HOME", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUSERBASE")
_PROGRAM = b"""\
import importlib.util, json, os, sys
first, package = sys.argv[1:]
sys.path[:] = [first] * bool(first) + [path for path in sys.path if path]
top, _, below = package.partition("/")
spec = importlib.util.find_spec(top)
folders = spec.submodule_search_locations if spec else None
found = [os.path.realpath(os.path.join(folder, below)) for folder in folders or ()]
sys.stdout.write("\\n" + json.dumps([folder for folder in found if os.path.isdir(folder)]))
"""


def imported_from(docker: Docker, image: str, runs: RunsAs, first: str, package: str) -> str | None:
    """The folder of a package in the image; None if its interpreter finds none, or cannot be run.

    first: the front of ``sys.path``. package: as a path, such as ``shop/defs``.
    """
    settings = {name: value for name, value in runs.environment if name in _DECIDING}
    for python in interpreters(runs):
        with suppress(ToolFailed, msgspec.DecodeError):
            run = runner(image, docker, [python], settings=settings)
            done = run(["-", first, package], _PROGRAM, {})
            if done.exit_code == 0:
                last = done.stdout.rpartition(b"\n")[2]  # a .pth file may print, too
                return next(iter(msgspec.json.decode(last, type=list[str])), None)
    return None
