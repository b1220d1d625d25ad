"""Files that ship inside the package: ``templates/``, which `init` and `demo` write."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Its location in 3.10, our oldest Python; newer versions moved it, but at run time it is not
    # needed.
    from importlib.abc import Traversable


# Replaces the leading dot of a stored name: git and the build backend would otherwise obey a
# template's ignore file here, in our own repository.
_DOT = "dot."
_NOT_TEMPLATES = ("__pycache__",)


def template(name: str) -> Traversable:
    """The template file or folder of that name (POSIX, relative to ``templates/``)."""
    return files("bundler").joinpath("templates", *name.split("/"))


def template_files(name: str) -> Iterator[tuple[str, bytes]]:
    """The destination of each file of a template folder (POSIX, relative), and its bytes."""
    return _walk(template(name), "")


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for child in sorted(folder.iterdir(), key=lambda child: child.name):
        if child.name in _NOT_TEMPLATES:
            continue
        path = prefix + written_name(child.name)
        if child.is_dir():
            yield from _walk(child, f"{path}/")
        else:
            yield path, child.read_bytes()


def written_name(stored: str) -> str:
    """The name in the user's project of a template file that is stored under this one."""
    return "." + stored.removeprefix(_DOT) if stored.startswith(_DOT) else stored
