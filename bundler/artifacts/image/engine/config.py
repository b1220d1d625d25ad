"""An image's configuration as the engine reports it.

The engine does not return the configuration's bytes. It returns the parts under other names, and
the history without fractions of seconds and without saying which lines made a layer. `config_of`
reconstructs the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundler.artifacts.image.image import Json
from bundler.errors import ToolFailed
from bundler.system.times import rfc3339

# Instructions that change no file. WORKDIR makes a layer only if it creates a folder.
_METADATA = {
    *("ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL"),
    *("MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL", "USER", "VOLUME"),
}
_NOP = "/bin/sh -c #(nop)"
# Which lines to doubt first if the count is wrong, starting with the surest metadata.
_SURE, _MAYBE, _FILES = 0, 1, 2


def config_of(inspected: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Json:
    """The configuration of an image.

    inspected: the answer to ``/images/ID/json``. history: to ``/images/ID/history``, newest first.
    Raises `ToolFailed` if the two contradict each other.
    """
    settings = settings_of(inspected)
    fields = {
        "architecture": inspected.get("Architecture"),
        "variant": inspected.get("Variant"),
        "os": inspected.get("Os"),
        "os.version": inspected.get("OsVersion"),
        "author": inspected.get("Author"),
        "created": inspected.get("Created"),
        "docker_version": inspected.get("DockerVersion"),
    }
    return {
        **{name: value for name, value in fields.items() if value not in (None, "")},
        **settings,
        "history": history_of(history, len(settings["rootfs"]["diff_ids"])),
    }


def settings_of(inspected: Mapping[str, Any]) -> Json:
    """The part of an image's configuration that is reported without its history."""
    layers = list((inspected.get("RootFS") or {}).get("Layers") or [])
    return {
        "config": inspected.get("Config") or {},
        "rootfs": {"type": "layers", "diff_ids": layers},
    }


def history_of(history: Sequence[Mapping[str, Any]], layers: int) -> list[Json]:
    """The history, oldest first, in which as many lines made a layer as there are layers.

    Raises `ToolFailed` if there are more layers than lines.
    """
    oldest_first = list(reversed(history))
    ranked = sorted(
        range(len(oldest_first)),
        key=lambda position: (-_likelihood(oldest_first[position]), position),
    )
    if layers > len(ranked):
        raise ToolFailed(
            "The Docker engine reports fewer history entries than the image has layers."
        )
    making = set(ranked[:layers])
    return [_line(entry, position in making) for position, entry in enumerate(oldest_first)]


def _likelihood(entry: Mapping[str, Any]) -> int:
    """How likely it is that a line of history made a layer."""
    if entry.get("Size"):
        return _FILES + 1
    words = str(entry.get("CreatedBy") or "").removeprefix(_NOP).split()
    instruction = words[0] if words else ""
    if instruction in _METADATA:
        return _SURE
    return _MAYBE if instruction == "WORKDIR" else _FILES


def _line(entry: Mapping[str, Any], makes_layer: bool) -> Json:
    line = {
        "created": rfc3339(int(entry["Created"])) if entry.get("Created") else None,
        "created_by": entry.get("CreatedBy"),
        "comment": entry.get("Comment"),
        "empty_layer": not makes_layer,
    }
    return {name: value for name, value in line.items() if value}
