"""Who an image's program runs as, and which directories it may enter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from bundler.artifacts.image.layer import Owned
from bundler.artifacts.image.rootfs import Node
from bundler.errors import ConfigurationError

_PASSWD_FIELDS, _GROUP_FIELDS = 7, 4  # passwd(5), group(5)


class Lookup(Protocol):
    """The files of an image, one at a time."""

    def lookup(self, path: str) -> Node | None:
        """The node at exactly this path."""


def user_id(files: Lookup, user: str) -> int:
    """The numeric user of an image's ``User``; a name is looked up in ``/etc/passwd``.

    Raises `ConfigurationError` if the image does not know the name: no container would start.
    """
    name = user.partition(":")[0]
    if not name:
        return 0
    if name.isdecimal():
        return int(name)
    for fields in passwd(files):
        if fields[0] == name and fields[2].isdecimal():
            return int(fields[2])
    raise ConfigurationError(
        f"The image runs as the user {name!r}, which is not in its /etc/passwd.",
        hint="Create the user in the Dockerfile, or use a number: USER 10001.",
    )


def may_enter(folder: Owned, user: int, groups: Callable[[], Collection[str]]) -> bool:
    """Whether a user may open what is in a directory. groups: called only if they decide."""
    if user in (0, folder.uid):
        return user == 0 or bool(folder.mode & 0o100)
    if folder.mode & 0o011 in (0, 0o011):
        return bool(folder.mode & 0o001)
    return bool(folder.mode & (0o010 if str(folder.gid) in groups() else 0o001))


def groups_of(files: Lookup, user: str) -> set[str]:
    """The numbers of the groups of an image's user; without any, root's."""
    name, _, given = user.partition(":")
    known = list(_fields(files, "/etc/group", _GROUP_FIELDS))
    if given:
        return {given, *(fields[2] for fields in known if fields[0] == given)}
    own = next((it for it in passwd(files) if name in (it[0], it[2])), None)
    if own is None:
        return {"0"}
    return {own[3], *(fields[2] for fields in known if own[0] in fields[3].split(","))}


def passwd(files: Lookup) -> Iterator[list[str]]:
    """The fields of each user in an image."""
    return _fields(files, "/etc/passwd", _PASSWD_FIELDS)


def _fields(files: Lookup, path: str, count: int) -> Iterator[list[str]]:
    node = files.lookup(path)
    for line in ((node.content if node is not None else None) or b"").splitlines():
        fields = line.decode(errors="replace").split(":")
        if len(fields) == count:
            yield fields
