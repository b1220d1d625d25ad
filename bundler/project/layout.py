"""Where a project has its modules (in ``src`` or in its root), its repository and Dockerfiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


def import_roots(root: Path) -> tuple[Path, Path]:
    """The directories from which modules are imported, in the order in which they are tried."""
    return root / "src", root


def import_path(parts: Sequence[str]) -> str:
    """A path below a project's root as imports see it: ``src/shop/state`` is ``shop/state``."""
    return "/".join(parts[1:] if len(parts) > 1 and parts[0] == "src" else parts)


def repository_of(directory: Path) -> Path | None:
    """The nearest folder, this one or a parent, with a ``.git`` (a file in a worktree)."""
    above = (directory, *directory.parents)
    return next((path for path in above if (path / ".git").exists()), None)


def dockerfiles_in(folder: Path) -> Iterator[Path]:
    """The Dockerfiles directly in a folder, the usual one first."""
    usual = "Dockerfile" if (folder / "Dockerfile").is_file() else "dockerfile"
    for pattern in (usual, "Dockerfile.*", "*.[dD]ockerfile", "Containerfile"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.name.endswith(".dockerignore"):
                yield path
