"""Small programs for the tests of PEX and wheels: a package that prints the state it finds."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bundler.state.bundle import Bundle
from bundler.state.manifest import Contents, File, RunRecord, build, state_of
from bundler.state.tree import hash_stream, scan

PLACE = "shop/defs/.local_defs_state"
PEX = Path(sys.executable).parent / "pex"
RECORD = RunRecord(read_back="every byte")

PRINT_STATE = """
from pathlib import Path

state = Path(__file__).parent / "defs" / ".local_defs_state"
found = sorted(path for path in state.rglob("*") if path.is_file() and path.name == "state")
print(" ".join(path.parent.name + "=" + path.read_text() for path in found) or "nothing")
"""


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def package(root: Path, **states: str) -> Path:
    """A folder to import from, with the package ``shop`` and the states next to its defs."""
    write(
        root,
        {
            "shop/__init__.py": "",
            "shop/__main__.py": PRINT_STATE,
            "shop/defs/__init__.py": "",
            "shop/zebra.py": "# sorts after the state\n",
        },
    )
    set_state(root / PLACE, **states)
    return root


def set_state(directory: Path, **states: str) -> Path:
    """A state directory with these states and nothing else but its ignore file."""
    shutil.rmtree(directory, ignore_errors=True)
    write(directory, {f"{key}/state": text for key, text in states.items()})
    write(directory, {".gitignore": "*\n"})
    return directory


def bundle_of(directory: Path, place: str = PLACE) -> Bundle:
    """What a refresh would have published there."""
    keys = sorted(child.name for child in directory.iterdir() if child.is_dir())
    states = tuple(state_of(key, key, scan(directory / key)) for key in keys)
    with (directory / ".gitignore").open("rb") as stream:
        support = (File(".gitignore", *hash_stream(stream)),)
    return Bundle(directory, build(Contents(states), support), place)


def run_pex(*arguments: str | Path, cwd: Path, root: Path) -> None:
    """The real pex, with its own cache."""
    environ = {**os.environ, "PEX_ROOT": str(_made(root))}
    subprocess.run([PEX, *arguments], cwd=cwd, check=True, env=environ, capture_output=True)


def output_of(pex: Path, root: Path, **environ: str) -> str:
    """What a PEX prints when it runs on this PEX_ROOT."""
    program = pex / "__main__.py" if pex.is_dir() else pex
    done = subprocess.run(
        [sys.executable, program],
        check=True,
        env={**os.environ, "PEX_ROOT": str(_made(root)), **environ},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def _made(root: Path) -> Path:
    """A new PEX_ROOT knows this interpreter, as on a machine on which any PEX has run."""
    if not root.exists():
        for name, content in _about_interpreters().items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


@functools.cache
def _about_interpreters() -> dict[str, bytes]:
    """What pex keeps of them, by path. To find it out takes a third of a PEX's first run."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        environ = {**os.environ, "PEX_ROOT": folder}
        for argv in ([PEX, "-o", root / "a.pex"], [sys.executable, root / "a.pex", "-c", ""]):
            subprocess.run(argv, check=True, env=environ, capture_output=True)
        found = [path for path in root.glob("interpreters/**/*") if path.is_file()]
        return {os.fspath(path.relative_to(root)): path.read_bytes() for path in found}


def wheel(folder: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A wheel of the package ``shop`` with further files before its metadata, as a backend would
    write it."""
    code: dict[str, str | bytes] = {
        "shop/__init__.py": "",
        "shop/__main__.py": PRINT_STATE + "def main(): pass\n",
        "shop/defs/__init__.py": "",
        **dict(sorted((files or {}).items())),
    }
    about = {
        "shop-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n",
        "shop-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        "shop-1.0.dist-info/entry_points.txt": "[console_scripts]\nshop = shop.__main__:main\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shop-1.0-py3-none-any.whl"
    record = "shop-1.0.dist-info/RECORD"
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in {**code, **about}.items():
            data = content.encode() if isinstance(content, str) else content
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
            made.writestr(_info(name), data)
        made.writestr(_info(record), "".join([*lines, f"{record},,\n"]))
    return path


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def state_files(bundle: Bundle) -> dict[str, bytes]:
    """What embedding a bundle adds, by path in the wheel."""
    return {f"{bundle.place}/{m.path}": m.open().read() for m in bundle.members()}
