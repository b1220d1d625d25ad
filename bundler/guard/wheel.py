"""Build backends that drop from a wheel what git ignores: said before a build.

A rule in the repository's ignore file is what protects state in every clone, and exactly that
makes some backends leave the state out. state-bundler puts the state into what it builds itself;
this is for those who run ``uv build`` or ``pip wheel`` on the side.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.guard.state_paths import NAME, join
from bundler.guard.verdict import Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_WHY = "A wheel built by this backend alone comes without its state, and says nothing."
# What finds the right lines for directories that are not Dagster's.
_INIT = "state-bundler init"
# Backend, as the project file names it -> what puts the state back.
_MENDS = {
    b"hatchling": '[tool.hatch.build] artifacts = ["**/.local_defs_state/**"]',
    b"poetry.core": '[tool.poetry] include = [{path = "**/.local_defs_state/**", '
    'format = ["sdist", "wheel"]}]',
    b"setuptools.build_meta": '[tool.setuptools.package-data] "*" = ["defs/.local_defs_state/**"]',
}


def dropped_from_wheels(
    top: bytes, projects: Iterable[bytes], directories: Iterable[bytes]
) -> list[Finding]:
    """A warning for each project whose backend leaves out a state directory that is protected."""
    places = list(directories)
    findings = []
    for project in projects:
        own = [place for place in places if place.startswith(project + b"/" if project else b"")]
        if not own:
            continue
        path = join(project, b"pyproject.toml")
        try:
            with open(join(top, path), "rb") as stream:
                text = stream.read()
        except OSError:
            continue
        mend = _mend_for(text, {place.rpartition(b"/")[2] for place in own})
        if mend:
            findings.append(_finding(path, mend))
    return findings


def _mend_for(text: bytes, names: set[bytes]) -> str | None:
    """None where the backend keeps the state, or the project speaks of it already.

    names: of the project's state directories, without what is above them.
    """
    _, found, table = text.partition(b"[build-system]")
    if not found or all((NAME if name == NAME else name + b"/*") in text for name in names):
        return None
    table = table.partition(b"\n[")[0]
    backend = next((line for line in table.splitlines() if line.startswith(b"build-backend")), b"")
    mend = next((mend for name, mend in _MENDS.items() if name in backend), None)
    return mend if mend is None or names == {NAME} else _INIT


def _finding(path: bytes, mend: str) -> Finding:
    return Finding(
        "warn",
        "wheel-drops-state",
        os.fsdecode(path),
        f"The build backend of {git.printable(path)} leaves out of a wheel what git ignores.",
        _WHY,
        mend if mend == _INIT else f"put into {git.printable(path)}: {mend}",
    )
