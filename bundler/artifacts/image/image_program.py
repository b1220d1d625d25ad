"""How an image's program starts, as far as its configuration says."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence

import msgspec

_SHELLS = ("sh", "bash", "ash", "dash")
_SCRIPT = re.compile(r"-[a-z]*c")
_MOST_SHELL_OPTIONS = 5
_DAGSTER = re.compile(r"^(dagster(-[a-z]+)?|dg)$")
_DAGSTER_OPTIONS = ("-d", "--working-directory")
# Programs that start others, or load code, from the directory that one of their options names.
_MOVES = {
    "env": ("-C", "--chdir"),
    "uv": ("--directory",),
    "gunicorn": ("--chdir",),
    "celery": ("--workdir",),
    "uvicorn": ("--app-dir",),
}
# After these, a shell starts the next command.
_BETWEEN = ("&&", ";", "||", "(")
# As click reads a switch from the environment.
_ON = ("1", "true", "t", "yes", "y", "on")


class RunsAs(msgspec.Struct, frozen=True):
    """How an image's program starts, from its configuration.

    working_directory: in which the program runs, after what its command line says.
    """

    working_directory: str = "/"
    environment: tuple[tuple[str, str], ...] = ()
    program: tuple[str, ...] = ()
    user: str = ""

    def variable(self, name: str) -> str:
        return dict(self.environment).get(name, "")

    def code_directory(self) -> str | None:
        """From where Dagster imports code; None if from the interpreter's own path alone."""
        words = command_words(self.program)
        at = next((i for i, word in enumerate(words) if _is(_DAGSTER, word)), len(words))
        rest = words[at + 1 :]
        is_empty = self.variable("DAGSTER_EMPTY_WORKING_DIRECTORY").lower() in _ON
        if is_empty or "--empty-working-directory" in rest:
            return None
        named = [
            *_values(rest, _DAGSTER_OPTIONS),
            *(word[2:] for word in rest if re.match(r"-d[^-]", word)),
            self.variable("DAGSTER_WORKING_DIRECTORY"),
        ]
        return posixpath.join(self.working_directory, _substituted(named[0], self.environment))


def _is(name: re.Pattern[str], word: str) -> bool:
    return name.match(posixpath.basename(word)) is not None


def _values(words: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The values of options: ``--name VALUE`` and ``--name=VALUE``."""
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in options:
            yield value if equals else following


def _substituted(text: str, environment: Sequence[tuple[str, str]]) -> str:
    """The text with the image's variables; empty if it has others, so that it has no effect."""
    found = string.Template(text).safe_substitute(dict(environment))
    return "" if "$" in found or "`" in found else found


def command_words(program: Sequence[str]) -> list[str]:
    """The words of a command line; a shell's ``-c`` is split, too."""
    words = list(program)
    for at in (i for i, word in enumerate(words) if posixpath.basename(word) in _SHELLS):
        options = words[at + 1 : at + 1 + _MOST_SHELL_OPTIONS]
        found = next((i for i, word in enumerate(options) if _SCRIPT.fullmatch(word)), None)
        if found is None or len(words) <= at + found + 2:
            continue
        script, *rest = words[at + found + 2 :]
        split = shlex.shlex(script, posix=True, punctuation_chars="();&|")
        split.whitespace_split, split.commenters = True, ""
        try:
            return [*split, *rest]  # which `exec "$@"` may run
        except ValueError:
            return []
    return words


def runs_as(config: Mapping[str, object]) -> RunsAs:
    """Parses the part of an image's ``config`` object that says how its program starts."""
    variables = [str(entry).partition("=") for entry in _strings(config.get("Env"))]
    environment = tuple((name, value) for name, _, value in variables)
    program = (*_strings(config.get("Entrypoint")), *_strings(config.get("Cmd")))
    directory = str(config.get("WorkingDir") or "/")
    for path in _moves(command_words(program)):
        directory = posixpath.join(directory, _substituted(path, environment))
    return RunsAs(
        posixpath.normpath(directory), environment, program, str(config.get("User") or "")
    )


def _moves(words: Sequence[str]) -> Iterator[str]:
    """The directories to which a command line changes, one after the other."""
    options: Sequence[str] = ()
    before = ";"
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if word == "cd" and before in _BETWEEN:
            yield following
        elif name in options:
            yield value if equals else following
        options = _MOVES.get(posixpath.basename(word), options)
        before = word


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
