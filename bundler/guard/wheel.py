"""Build backends that drop from a wheel what git ignores: said before a build.

A rule in the repository's ignore file is what protects state in every clone, and exactly that
makes some backends leave the state out. state-bundler puts the state into what it builds itself;
this is for users who also run ``uv build`` or ``pip wheel``.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.guard.fixes import file_from_here
from bundler.guard.state_paths import NAME, join
from bundler.guard.verdict import GuardFinding
from bundler.system.git_directory import read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RULE = "wheel-drops-state"
_WHY = "A wheel that this backend builds on its own silently lacks the state."
# The backends that do so, as the project file names them.
_DROPPING = (b"hatchling", b"poetry.core", b"setuptools.build_meta")


def dropped_from_wheels(
    top: bytes, projects: Iterable[bytes], directories: Iterable[bytes]
) -> list[GuardFinding]:
    """A warning for each project whose build backend omits a protected state directory."""
    places = list(directories)
    affected = []
    for project in projects:
        own = [place for place in places if place.startswith(project + b"/" if project else b"")]
        if not own:
            continue
        path = join(project, b"pyproject.toml")
        try:
            text = read_regular(join(top, path))
        except OSError:
            continue
        if _drops(text, {place.rpartition(b"/")[2] for place in own}):
            affected.append((path, project))
    # One text for all of them: a workspace needs one explanation, and not one a project.
    fix = "; ".join(
        f"state-bundler doctor --fix --project {file_from_here(top, project or b'.')}"
        for _, project in affected
    )
    return [
        GuardFinding(
            "warn",
            RULE,
            os.fsdecode(path),
            f"The build backend of {git.printable(path)} excludes git-ignored files from wheels.",
            _WHY,
            fix,
        )
        for path, _ in affected
    ]


def _drops(text: bytes, names: set[bytes]) -> bool:
    """Whether the backend leaves the state out, and the project does not speak of it yet.

    names: of the project's state directories, without what is above them.
    """
    _, found, table = text.partition(b"[build-system]")
    if not found or all((NAME if name == NAME else name + b"/*") in text for name in names):
        return False
    table = table.partition(b"\n[")[0]
    backend = next((line for line in table.splitlines() if line.startswith(b"build-backend")), b"")
    return any(name in backend for name in _DROPPING)
