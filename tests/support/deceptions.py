"""Zip files with anything in them, and what `verify` says of them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError

_RECORD = "shop-1.0.dist-info/RECORD"
Entries = dict[str, bytes]


def accepts(path: Path) -> bool:
    """What `verify` says; every refusal is 76."""
    try:
        with open_artifact(str(path)) as artifact:
            return not verify(artifact).all_problems
    except BundlerError as error:
        if error.exit_code != 76:
            raise
        return False


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def write(
    path: Path, entries: Mapping[str, bytes], attributes: Mapping[str, int] | None = None
) -> Path:
    """A zip file of these entries. attributes: kind and permission bits, for other than files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (attributes or {}).get(name, 0o100644 << 16)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def recorded(entries: Entries) -> Entries:
    """The entries with a RECORD that names them all."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for name, data in entries.items():
        if name != _RECORD and not name.endswith("/"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.writerow([name, f"sha256={digest}", len(data)])
    lines.writerow([_RECORD, "", ""])
    return {**entries, _RECORD: text.getvalue().encode()}


def pythons() -> list[str]:
    """Every Python that this project supports, is here and starts; one of each version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(10, 15):
        name = shutil.which(f"python3.{minor}")
        for path in (sys.executable, name, *pyenv.glob(f"3.{minor}.*/bin/python3")):
            command = [path or "false", "-c", "import sys; print(*sys.version_info[:2])"]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0:
                found.setdefault(done.stdout, str(path))
    return list(found.values())
