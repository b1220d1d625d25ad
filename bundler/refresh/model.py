"""The values that describe a source and what it yields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bundler.errors import BundlerError
from bundler.state.manifest import ManagementType

if TYPE_CHECKING:
    from bundler.project.projects import Project


# In a command's words: the path of a copy of the last good state.
PREVIOUS_PATH = "{previous_path}"


class Component(msgspec.Struct, frozen=True):
    """A component that a source has found.

    kind: its class, ``package.module.Class``, ``command``, or ``command:dbt``. ancestors: the
    classes that it inherits from, nearest first: a subclass of a vendor's component is one.
    location: the file that declares it, such as ``defs/shop/defs.yaml``; for messages. line: its
    line in that file; 0 if unknown. warning: what the user should know about it. made_of:
    identifies what its state is made of; components that share a key must agree on it.
    key_variables: environment variables that are part of the key: another value is another key.
    environment_variables: every variable that was read to make it. unset_variables: those in its
    declaration that are not set, or empty. defers_in: where a dbt project in its state looks for
    the manifest that it defers to, below the key directory; empty if it does not defer. unread: the
    part of its code that ignores the state, judging by its source. refused: why its key cannot be
    used; the key is then the one to show.
    """

    key: str
    management_type: ManagementType
    kind: str
    refresh_if_dev: bool = True
    location: str = ""
    line: int = 0
    warning: str = ""
    ancestors: tuple[str, ...] = ()
    made_of: str = ""
    key_variables: tuple[str, ...] = ()
    environment_variables: tuple[str, ...] = ()
    unset_variables: tuple[str, ...] = ()
    defers_in: str = ""
    unread: str = ""
    refused: BundlerError | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Its class and those that it inherits from, nearest first."""
        return (self.kind, *self.ancestors)

    @property
    def is_command(self) -> bool:
        return self.kind.startswith("command")


class Found(msgspec.Struct, frozen=True):
    """What one source yields.

    directory: the state directory, absolute. place: where the program looks for it, relative to
    the root from which its modules are imported (POSIX). version: of what runs the components,
    such as ``dagster 1.13.27``. warnings: messages for the user.
    """

    directory: Path
    place: str
    components: tuple[Component, ...]
    version: str = ""
    warnings: tuple[str, ...] = ()

    def keys(self, management_type: ManagementType) -> frozenset[str]:
        """Those of the components of this type."""
        return frozenset(
            item.key for item in self.components if item.management_type == management_type
        )


class Reached(msgspec.Struct, frozen=True):
    """The result of reaching one key's system.

    hosts: those that answered, with their port. how: the way in which that was determined. failure:
    as in a refresh. how ``nothing`` without a failure: no request was seen.
    """

    key: str
    hosts: tuple[str, ...]
    how: str
    seconds: float
    failure: BundlerError | None = None


class Looked(msgspec.Struct, frozen=True):
    """The components of the sources, and the result of reaching their systems."""

    found: tuple[Found, ...]
    reached: tuple[Reached, ...] = ()


class Source(msgspec.Struct, frozen=True):
    """How the worker finds a source's components.

    kind: the file ``<kind>_worker.py`` in `bundler.worker`. python: its interpreter. load: the rest
    of the worker's ``load`` command. judged_by: ``report`` if the worker itself calls the
    component, ``exit`` if another program does.
    """

    project: Project
    kind: str
    python: Path
    load: Mapping[str, Any]
    judged_by: Literal["report", "exit"] = "report"

    def starts_from_previous(self, key: str) -> bool:
        """Whether the command of this key asks for its last good state."""
        return self.kind == "command" and any(
            PREVIOUS_PATH in word
            for entry in self.load["entries"]
            if entry["key"] == key
            for word in entry["argv"]
        )


def warnings_of(found: Sequence[Found], selected: Sequence[str] = ()) -> Iterator[str]:
    """What discovery warns of; nothing about other keys if some are selected."""
    components = [component for item in found for component in item.components]
    others = {it.key for it in components}.difference(selected) if selected else set()
    for text in (text for item in found for text in item.warnings):
        if not any(key in text for key in others) or any(key in text for key in selected):
            yield text
    yield from (it.warning for it in components if it.warning and it.key not in others)


def found_of(event: Mapping[str, Any]) -> Found:
    """The worker's ``found`` event as a value."""
    return msgspec.convert(event, Found, dec_hook=decoded)


def decoded(kind: type, value: Any) -> Path:
    """What msgspec does not know itself: a path. No worker and no cache may say anything else."""
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"{kind.__name__} is not kept.")
    return Path(value)
