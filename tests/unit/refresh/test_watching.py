"""Which variables are told as a component's own, and what is shown where it raises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bundler.worker import watching

_PROGRAM = """
import importlib.util, json, os, sys
sys.path[:0] = [{root!r}, {library!r}]
spec = importlib.util.spec_from_file_location("watching", {watching!r})
watching = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watching)
import component
told = []
watching.tell_environment({root!r}, lambda kind, **said: told.append(said["name"]))
try:
    component.write()
except KeyError as error:
    watching.print_traceback(error)
print(json.dumps(told))
"""
_COMPONENT = """
import os, subprocess, library
def write():
    library.connect()
    subprocess.run(["true"], env={**os.environ, "MORE": "1"})
    subprocess.run(["true"], env=os.environ.copy())
    assert "PATH" in dict(os.environ)
    for name, value in os.environ.items():
        assert os.environ.get("SHOP_TOKEN") and value is not None
    os.getenv("SHOP_REGION")
    os.environ["SHOP_URL"]
"""


def test_only_what_the_project_itself_reads_by_name_is_told(tmp_path: Path) -> None:
    library = tmp_path / ".venv/lib/python3.11/site-packages"
    library.mkdir(parents=True)
    (library / "library.py").write_text("import os\ndef connect(): os.environ['PATH']\n")
    (tmp_path / "component.py").write_text(_COMPONENT)
    program = _PROGRAM.format(watching=watching.__file__, root=str(tmp_path), library=str(library))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "SHOP_TOKEN": "x", "Z": "y"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == ["SHOP_TOKEN", "SHOP_REGION", "SHOP_URL"]
    shown = done.stderr.splitlines()
    assert shown[0].startswith("Traceback")
    assert shown[-1] == "KeyError: 'SHOP_URL'"
    assert "component.py" in done.stderr
    assert "watching.py" not in done.stderr
