"""Where states come from. One module a kind: `dagster`, `component`, `command`.

A *source* belongs to one project and one state directory. It yields *components*, and it can
write the state of one of them to a path, in a process that can be killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bundler.manifest import ManagementType


@dataclass(frozen=True)
class Component:
    """A component that a source has found.

    kind: its class, ``package.module.Class``, or ``command``; vendors limit requests by kind.
    location: where the project declares it, such as ``defs/shop/defs.yaml``; for people.
    key_variables: environment variables that the key is made of: another value is another key.
    environment_variables: every variable that was read to make it.
    """

    key: str
    management_type: ManagementType
    kind: str
    refresh_if_dev: bool = True
    location: str = ""
    key_variables: tuple[str, ...] = ()
    environment_variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What one source yields.

    directory: the state directory, absolute. place: where the program looks for it, relative to
    the root from which its modules are imported (POSIX). version: of what runs the components,
    such as ``dagster 1.13.27``. warnings: sentences for the person.
    """

    directory: Path
    place: str
    components: tuple[Component, ...]
    version: str = ""
    warnings: tuple[str, ...] = ()
