"""``make release-check``: builds what would be published, and checks it as a user would get it.

The sdist and the wheel are built twice and must be the same bytes. Their metadata, contents and
changelog are checked, each is installed in an empty environment, and every entry point is started,
with every Python from 3.10 to 3.13 that this machine has. An SBOM (CycloneDX) is written as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from bundler.project.config import read_toml
from bundler.version import __version__
from tests.support.environments import ROOT

DIST = ROOT / "build" / "dist"
_UV = [sys.executable, "-m", "uv", "--quiet"]
_TWINE = "twine>=6.1"
_CYCLONEDX = "cyclonedx-bom>=7"
_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# What the entry points are asked, and what they print then, where it is not their version.
_SMOKE = {
    "docker-bundle": ("docker-cli-plugin-metadata", __version__),
    "pex-bundle": ("--help", "--bundle-"),
}
_FORBIDDEN = re.compile(r"(^|/)(\.ci|\.venv|build|__pycache__|\.env)(/|$)|\.pyc$")


class NotReady(Exception):
    """What keeps this version from being released."""


def check_changelog(text: str, version: str, *, is_tagged: bool) -> None:
    """A version that is tagged has its own dated section, with something in it."""
    heading = (
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$" if is_tagged else "^## Unreleased$"
    )
    section = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if section is None or not section[1].strip():
        wanted = f"## {version} (YYYY-MM-DD)" if is_tagged else "## Unreleased"
        raise NotReady(f'CHANGELOG.md has no section "{wanted}", or nothing in it.')


def build(folder: Path) -> list[Path]:
    """As a clean clone would: from the commit, with its time."""
    epoch = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, check=True, text=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
        subprocess.run([*_UV, "build", "--out-dir", folder, clone], env=environment, check=True)
    return sorted([*folder.glob("*.tar.gz"), *folder.glob("*.whl")])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_contents(paths: list[Path]) -> None:
    for path in paths:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names = wheel.namelist()
        else:
            with tarfile.open(path) as sdist:
                names = sdist.getnames()
        if found := [name for name in names if _FORBIDDEN.search(name)]:
            raise NotReady(f"{path.name} holds what does not belong there: {found[:3]}")
        wanted = ("bundler/py.typed", "LICENSE") if path.suffix == ".whl" else ("LICENSE",)
        if missing := [end for end in wanted if not any(name.endswith(end) for name in names)]:
            raise NotReady(f"{path.name} lacks {missing}")


def smoke(python: str, path: Path) -> None:
    """Installs it in an empty environment, and starts every entry point far from the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "environment"
        interpreter = home / "bin" / "python"
        subprocess.run([*_UV, "venv", "--python", python, home], check=True)
        subprocess.run(
            [*_UV, "pip", "install", "--python", interpreter, f"{path}[pex]"], check=True
        )
        for name in read_toml(ROOT / "pyproject.toml")["project"]["scripts"]:
            argument, shown = _SMOKE.get(name, ("--version", __version__))
            argv = [home / "bin" / name, argument]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode or shown not in done.stdout:
                raise NotReady(f"{name} of {path.name} on Python {python}:\n{done.stderr[-2000:]}")


def installed_pythons() -> list[str]:
    """Those versions that uv finds here; nothing is downloaded."""

    def is_here(version: str) -> bool:
        argv = [*_UV, "python", "find", "--no-python-downloads", version]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    return [version for version in _PYTHONS if is_here(version)]


def write_sbom(wheel: Path, target: Path) -> None:
    """What is installed with the wheel and all of its extras."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "environment"
        extras = ",".join(read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"])
        subprocess.run([*_UV, "venv", "--python", sys.executable, home], check=True)
        python = home / "bin" / "python"
        subprocess.run(
            [*_UV, "pip", "install", "--python", python, f"{wheel}[{extras}]"], check=True
        )
        argv = ["tool", "run", "--from", _CYCLONEDX, "cyclonedx-py", "environment", python]
        argv += ["--output-reproducible", "--output-format", "JSON", "-o", target]
        subprocess.run([*_UV, *argv], check=True, capture_output=True)
    names = {one["name"] for one in json.loads(target.read_text())["components"]}
    if "state-bundler" not in names or "click" not in names:
        raise NotReady(f"{target.name} does not name what is installed.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tag", default="", help="the tag to be released, such as v0.1.0")
    tag = parser.parse_args().tag
    if tag and tag != f"v{__version__}":
        raise NotReady(f"The tag {tag} is not v{__version__}, as bundler/version.py says.")
    check_changelog((ROOT / "CHANGELOG.md").read_text(), __version__, is_tagged=bool(tag))
    print(f"✓ version {__version__}, changelog", flush=True)
    shutil.rmtree(DIST, ignore_errors=True)
    made = build(DIST)
    with tempfile.TemporaryDirectory() as again:
        twice = build(Path(again))
        if [digest(path) for path in made] != [digest(path) for path in twice]:
            raise NotReady("Two builds of the same commit differ.")
    print(f"✓ two builds are the same: {', '.join(path.name for path in made)}", flush=True)
    subprocess.run([*_UV, "tool", "run", _TWINE, "check", "--strict", *made], check=True)
    check_contents(made)
    print("✓ metadata, contents", flush=True)
    pythons = installed_pythons()
    for python in pythons:
        for path in made:
            smoke(python, path)
    absent = [one for one in _PYTHONS if one not in pythons]
    print(f"✓ every entry point starts on Python {', '.join(pythons)}"
          f"{'; not here: ' + ', '.join(absent) if absent else ''}", flush=True)  # fmt: skip
    wheel = next(path for path in made if path.suffix == ".whl")
    write_sbom(wheel, ROOT / "build" / "sbom.cdx.json")
    print("✓ build/sbom.cdx.json")


if __name__ == "__main__":
    try:
        main()
    except NotReady as error:
        sys.exit(f"not ready: {error}")
