"""The file system of an image in an engine, looked up path by path.

The engine only shows an image's files through a container. One is created and never started; its
files are read with the archive requests, and it is removed with its anonymous volumes.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

import msgspec

from bundler.artifacts.image.engine.connection import Engine
from bundler.artifacts.image.image_import_path import captured
from bundler.artifacts.image.rootfs import Node, RootFilesystem, node_of
from bundler.artifacts.image.tarstream import read_tar
from bundler.errors import ToolFailed

# Bits of Go's io/fs.FileMode, which the engine uses in its answers.
_GO_DIRECTORY, _GO_SYMLINK, _GO_SPECIAL = 1 << 31, 1 << 27, (1 << 26) | (1 << 25) | (1 << 24)
# Another request takes as long as reading this much more.
_MAX_PASSED_BYTES = 8 * 1024 * 1024
ANSWER = "The engine's answer"


@contextmanager
def reading(engine: Engine, image_id: str) -> Iterator[ContainerFiles]:
    """A container of the image that exists inside the block."""
    with engine.container(image_id) as identity:
        yield ContainerFiles(engine, identity)


class ContainerFiles:
    """A container's files."""

    lists = False

    def __init__(self, engine: Engine, identity: str) -> None:
        self.engine = engine
        self._identity = identity
        self._stats: dict[str, Node | None] = {}
        self._nodes: dict[str, Node | None] = {}

    def resolve(self, path: str) -> str | None:
        """The path without symbolic links; None if it does not exist."""
        real = "/"
        for part in path.split("/"):
            if part in ("", "."):
                continue
            real = posixpath.normpath(posixpath.join(real, part))
            stat = self._stat(real)
            if stat is None:
                return None
            if stat.kind == "symlink":
                # The engine has followed the link, and further links.
                real = stat.target
                if self._stat(real) is None:
                    return None
        return real

    def is_directory(self, path: str) -> bool:
        stat = self._stat(path)
        return stat is not None and stat.kind == "directory"

    def fetch(self, paths: Sequence[str]) -> None:
        """Looks up nested directories with as few requests as possible.

        The engine takes a tenth of a second to begin an archive, and then lists everything below.
        """
        for path in paths:
            if path not in self._nodes:
                self._fetch_below(path, {path, *paths} - self._nodes.keys())

    def _fetch_below(self, top: str, wanted: set[str]) -> None:
        passed = 0
        with self.archive(top) as stream:
            for member in read_tar(stream, ANSWER):
                path = posixpath.dirname(top).rstrip("/") + member.path
                if path in wanted:
                    self._nodes[path] = node_of(member)
                    wanted.discard(path)
                passed += member.size
                if not wanted or passed > _MAX_PASSED_BYTES:
                    return

    def lookup(self, path: str) -> Node | None:
        """The node at exactly this path: owner, mode, and what is captured of a file."""
        if path not in self._nodes:
            self._nodes[path] = self._fetch(path)
        return self._nodes[path]

    def _fetch(self, path: str) -> Node | None:
        if self._stat(path) is None:
            return None
        with self.archive(path) as stream:
            for member in read_tar(stream, ANSWER):
                content = captured(path, member) if member.kind == "file" else None
                return node_of(member, content)
        return None

    def walk(self, top: str = "/") -> Iterator[tuple[str, Node]]:
        """Yields nothing: use `tree` for a listing, which takes a second or more."""
        del top
        return iter(())

    def tree(self) -> RootFilesystem:
        """The whole file system, from one listing."""
        tree = RootFilesystem()
        with self.engine.export(self._identity) as response:
            tree.apply(response, 0, captured)
        return tree

    def archive(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A tar stream of a file, or of a directory with its contents, named after it."""
        return self.engine.archive(self._identity, path)

    def has(self, path: str) -> bool:
        return self._stat(path) is not None

    def _stat(self, path: str) -> Node | None:
        if path not in self._stats:
            self._stats[path] = self._ask(path)
        return self._stats[path]

    def _ask(self, path: str) -> Node | None:
        try:
            encoded = self.engine.path_stat(self._identity, path)
        except ToolFailed:
            # The engine fails for a path below a file, such as an archive on the import path.
            if path == "/" or self._is_in_directory(path):
                raise
            return None
        return _parse_stat(encoded) if encoded is not None else None

    def _is_in_directory(self, path: str) -> bool:
        above = self.resolve(posixpath.dirname(path))
        return above is not None and self.is_directory(above)


def _parse_stat(encoded: str) -> Node:
    try:
        stat: dict[str, Any] = msgspec.json.decode(base64.b64decode(encoded))
        mode, target = int(stat["mode"]), str(stat.get("linkTarget") or "")
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise ToolFailed("The Docker engine did not describe a path in the image.") from error
    if mode & _GO_SYMLINK:
        return Node("symlink", target=target)
    if mode & _GO_DIRECTORY:
        return Node("directory")
    return Node("other" if mode & _GO_SPECIAL else "file")
