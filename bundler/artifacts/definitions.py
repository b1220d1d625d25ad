"""Describes what a code location defines by loading it, in an artifact or in a project."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from bundler.artifacts.running import Runner
from bundler.errors import ToolFailed
from bundler.state.definitions import REMOVED, Definitions
from bundler.system.process import last_word
from bundler.worker import configuration, describing, values
from bundler.worker import definitions as program

# A program has it once, before everything else; and no module of ours, since its parts are in it.
_FUTURE = "from __future__ import annotations\n"
_OURS = re.compile(r"^from bundler\.worker\.\w+ import (?:\([^)]*\)|.+)\n", re.MULTILINE)
_SALT = secrets.token_hex(16)
# The same text for the same set of names, in each load.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_MOST_VALUE = 200
_MOST_ERROR = 2000


class Request(msgspec.Struct, frozen=True):
    """What to load; `bundler.worker.definitions` describes the fields."""

    target: str
    root: str = ""
    package: str = ""
    folder: str | None = None
    states: dict[str, str] = {}
    salt: str = _SALT


def describe(
    run: Runner,
    request: Request,
    environment: Mapping[str, str],
    name: str,
    redact: Callable[[str], str],
) -> Definitions:
    """Loads a code location and describes it; `error` in the result says why it does not load.

    name: of what is loaded, for messages. redact: removes secrets from a text.
    Raises `ToolFailed` if there is no answer.
    """
    done = run(["-"], program_for(request), {**environment, **_ENVIRONMENT})
    _, found, answer = done.stdout.decode(errors="replace").rpartition(program.MARKER)
    if not found:
        said = last_word(redact(done.stderr.decode(errors="replace")))
        raise ToolFailed(
            f"{name} could not be loaded: Python failed with exit code {done.exit_code}"
            + (f": {said}" if said else "."),
            hint="Import its modules by hand: an import may have ended the process.",
        )
    return _without_secrets(
        msgspec.json.decode(answer.splitlines()[0], type=Definitions), cache(redact)
    )


def _without_secrets(told: Definitions, redact: Callable[[str], str]) -> Definitions:
    """Secrets are removed from whole texts: of one that was cut, a part would stay."""
    return Definitions(
        {
            kind: {
                name: {field: _shown(it, redact) for field, it in fields.items()}
                for name, fields in _named(found, redact)
            }
            for kind, found in told.definitions.items()
        },
        {
            redact(key): {kind: list(map(redact, names)) for kind, names in made.items()}
            for key, made in told.keys.items()
        },
        {redact(key): there for key, there in told.states.items()},
        told.version,
        None if told.error is None else redact(told.error)[:_MOST_ERROR],
    )


def _named(found: Mapping[str, Any], redact: Callable[[str], str]) -> Iterator[tuple[str, Any]]:
    """With names without secrets; those that are the same then are numbered."""
    counts: dict[str, int] = {}
    for name, value in found.items():
        shown = redact(name)
        counts[shown] = counts.get(shown, 0) + 1
        yield (f"{shown} ({counts[shown]})" if counts[shown] > 1 else shown), value


def _shown(value: Any, redact: Callable[[str], str]) -> Any:
    """A field's value without secrets; a digest stands for the rest of a long text, and another one
    for what was removed."""
    if isinstance(value, list):
        return [_shown(item, redact) for item in value]
    if isinstance(value, dict):
        return {name: _shown(item, redact) for name, item in _named(value, redact)}
    if not isinstance(value, str):
        return value
    label, mark, _ = value.partition(values.DIGESTED)
    text, label = redact(value), redact(label)
    whole = value.replace(values.DIGESTED, "")
    removed = f"{REMOVED}{values.digest(_SALT + value)}" if redact(whole) != whole else ""
    if len(label) > _MOST_VALUE:
        return f"{label[:_MOST_VALUE]}… {values.digest(text)}{removed}"
    return f"{label} {values.digest(text)}{removed}" if mark else f"{text}{removed}"


def program_for(request: Request) -> bytes:
    """The program that answers a request. With many keys, the request is too long for an
    argument."""
    text = msgspec.json.encode(request).decode()
    files = [Path(str(it.__file__)) for it in (values, configuration, describing, program)]
    parts = [_OURS.sub("", it.read_text(encoding="utf-8")).replace(_FUTURE, "") for it in files]
    return "\n\n".join([_FUTURE, *parts, f"answer(json.loads({text!r}))\n"]).encode()


msgspec.json.Decoder(Definitions)  # before threads do it: see `bundler.state.manifest`
