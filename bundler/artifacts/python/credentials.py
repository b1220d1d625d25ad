"""Credentials among the files that a PEX or a wheel was built of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bundler.artifacts.python.trees import Tree
from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.system.credential_files import BY_CONTENT, has_credentials_name, is_private

_SHOWN = 5


def refuse(name: str, trees: Iterable[Tree], listener: Listener) -> None:
    """Raises `ConfigurationError` for files that hold credentials by their names.

    name: of the artifact. trees: with the user's own code; what is in a dependency is its author's.
    A private key that belongs to the package, such as one for its tests, is a warning.
    """
    found = list(dict.fromkeys(tree.at(path) for tree in trees for path in _credentials(tree)))
    keys = [path for path in found if path.endswith(BY_CONTENT)]
    if keys:
        listener.warning(f"{name} holds private keys: {', '.join(keys[:_SHOWN])}.")
    others = [path for path in found if path not in keys]
    if others:
        raise ConfigurationError(
            f"{name} would hold credentials: {', '.join(others[:_SHOWN])}.",
            hint="Move them out of the package, exclude them in the build backend, or give pex a "
            "folder that has only code: `-D src`.",
        )


def _credentials(tree: Tree) -> Iterator[str]:
    """The files, or the folders that they are in."""
    for path in tree.leaves:
        parts = path.split("/")
        for end, part in enumerate(parts, 1):
            top = "/".join(parts[:end])
            if part == ".git" or has_credentials_name(top):
                if path != top or not top.endswith(BY_CONTENT) or is_private(tree.read(top)):
                    yield top
                break
