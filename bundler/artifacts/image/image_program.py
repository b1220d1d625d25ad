"""How an image's program starts, as far as its configuration says."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
import string
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

_SHELLS = ("sh", "bash", "ash", "dash")
_SCRIPT = re.compile(r"-[a-z]*c")
_MOST_SHELL_OPTIONS = 5
_SCRIPT_NAME = re.compile(r"\.sh$|entry-?point")
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
_BETWEEN = ("&", ";", "||", "(")
# What only a shell can say, in a path: options, homes, variables and what follows.
_UNKNOWN = re.compile(r"^[-~]|[$`;&|()]")
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
        directory = _substituted(named[0], self.environment)
        return posixpath.normpath(posixpath.join(self.working_directory, directory))


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
    return "" if _UNKNOWN.search(found) else found


def command_words(program: Sequence[str]) -> list[str]:
    """The words of a command line; a shell's ``-c`` is split, too."""
    words = list(program)
    for at in (i for i, word in enumerate(words) if posixpath.basename(word) in _SHELLS):
        options = words[at + 1 : at + 1 + _MOST_SHELL_OPTIONS]
        found = next((i for i, word in enumerate(options) if _SCRIPT.fullmatch(word)), None)
        if found is None or len(words) <= at + found + 2:
            continue
        script, *rest = words[at + found + 2 :]
        return [*_words_of(script), *rest]  # which `exec "$@"` may run
    return words


def _words_of(script: str) -> list[str]:
    """The words of a shell's script; empty if it is more than that."""
    lines = [line for line in script.replace("\\\n", " ").split("\n") if line.lstrip()[:1] != "#"]
    split = shlex.shlex(" ; ".join(lines), posix=True, punctuation_chars="();&|")
    split.whitespace_split, split.commenters = True, ""
    try:
        return list(split)
    except ValueError:
        return []


def runs_as(config: Mapping[str, object]) -> RunsAs:
    """Parses the part of an image's ``config`` object that says how its program starts."""
    variables = [str(entry).partition("=") for entry in _strings(config.get("Env"))]
    return _moved(
        RunsAs(
            working_directory=str(config.get("WorkingDir") or "/"),
            environment=tuple((name, value) for name, _, value in variables),
            program=(*_strings(config.get("Entrypoint")), *_strings(config.get("Cmd"))),
            user=str(config.get("User") or ""),
        )
    )


def with_script(runs: RunsAs, read: Callable[[str], bytes | None]) -> RunsAs:
    """The same start with the commands of the script that it runs, if any.

    read: returns the content of a script, by its absolute path.
    """
    for at, word in enumerate(runs.program):
        if is_script(word):
            folders = [""] if "/" in word else runs.variable("PATH").split(":")
            paths = [posixpath.join(runs.working_directory, folder, word) for folder in folders]
            text = next(filter(None, map(read, paths)), b"").decode(errors="replace")
            first = text.partition("\n")[0]
            if (first.startswith("#!") and "sh" not in first) or not _words_of(text):
                return runs
            shell = ("sh", "-c", text, *runs.program[at + 1 :])
            return _moved(msgspec.structs.replace(runs, program=shell))
    return runs


def is_script(path: str) -> bool:
    """Whether an image may start by a shell's script of this name."""
    return _SCRIPT_NAME.search(posixpath.basename(path)) is not None


def _moved(runs: RunsAs) -> RunsAs:
    """In the directory to which its command line changes."""
    here = last = runs.working_directory
    around: list[str] = []  # the directories outside of each subshell
    options: Sequence[str] = ()
    before = ";"
    for word, following in itertools.pairwise([*command_words(runs.program), ""]):
        name, equals, value = word.partition("=")
        if word == "cd" and before.endswith(_BETWEEN):
            path = last if following == "-" else _substituted(following, runs.environment)
            here, last = posixpath.join(here, path), here
        elif name in options:
            path = _substituted(value if equals else following, runs.environment)
            here = posixpath.join(here, path)
        elif word.startswith("("):
            around.append(here)
        elif word.startswith(")") and around and following:
            here = around.pop()
        options = _MOVES.get(posixpath.basename(word), options)
        before = word
    return msgspec.structs.replace(runs, working_directory=posixpath.normpath(here))


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
