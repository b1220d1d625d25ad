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
_RUNS_SHELL = re.compile(r"\b[a-z]{0,2}sh(\s|$)")
_NO_SCRIPT = re.compile(r"dagster(-[a-z]+)?$|dg$|uv$|python|(ba|a|da)?sh$")
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
# After these, a shell certainly runs the next command.
_BETWEEN = ("&", ";")
# Whether and how often it runs what is inside of these, it decides itself.
_BLOCKS = {"if": "fi", "case": "esac", "{": "}"}
_BLOCKS |= dict.fromkeys(("for", "while", "until", "select"), "done")
# What may change the directory or the variables in a way that `_moved` does not follow.
_UNCLEAR = ("cd", "eval", "popd", "pushd", "su")
_READS = (".", "source")
_STARTS = (*_BETWEEN, "|", "(", "{", "then", "do", "else")
# The variables that decide from where Python and Dagster import.
DECIDING = re.compile(
    r"PYTHON(HOME|PATH|SAFEPATH|USERBASE)|DAGSTER_(EMPTY_)?WORKING_DIRECTORY"
    r"|PATH|HOME|VIRTUAL_ENV|UV_PROJECT_ENVIRONMENT"
)
# What only a shell can say, in a path: options, homes, variables and what follows.
_UNKNOWN = re.compile(r"^[-~]|[$`;&|()]")
# As click reads a switch from the environment.
_ON = ("1", "true", "t", "yes", "y", "on")


class RunsAs(msgspec.Struct, frozen=True):
    """How an image's program starts, from its configuration.

    working_directory: in which the program runs, after what its command line says. is_clear:
    False if the command line changes the directory or the import path in a way that only running
    it would show.
    """

    working_directory: str = "/"
    environment: tuple[tuple[str, str], ...] = ()
    program: tuple[str, ...] = ()
    user: str = ""
    is_clear: bool = True

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
        directory = _substituted(named[0], dict(self.environment))
        return posixpath.normpath(posixpath.join(self.working_directory, directory))


def _is(name: re.Pattern[str], word: str) -> bool:
    return name.match(posixpath.basename(word)) is not None


def _values(words: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The values of options: ``--name VALUE`` and ``--name=VALUE``."""
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in options:
            yield value if equals else following


def _substituted(text: str, values: Mapping[str, str]) -> str:
    """The text with these variables; empty if it has others, so that it has no effect."""
    found = string.Template(text).safe_substitute(values)
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
    words = command_words(runs.program)
    for at, word in enumerate(words):
        if is_script(word) or (at == 0 and "." not in word and not _is(_NO_SCRIPT, word)):
            folders = [""] if "/" in word else runs.variable("PATH").split(":")
            paths = [posixpath.join(runs.working_directory, folder, word) for folder in folders]
            text = next(filter(None, map(read, paths)), b"").decode(errors="replace")
            first = text.partition("\n")[0]
            if (first.startswith("#!") and not _RUNS_SHELL.search(first)) or not _words_of(text):
                continue
            shell = ("sh", "-c", text, *words[at + 1 :])
            return _moved(msgspec.structs.replace(runs, program=shell))
    return runs


def is_script(path: str) -> bool:
    """Whether an image may start by a shell's script of this name."""
    folder, name = posixpath.split(path)
    return _SCRIPT_NAME.search(name) is not None or bool(folder and name and "." not in name)


def _moved(runs: RunsAs) -> RunsAs:
    """In the directory to which its command line changes, with the variables that it sets."""
    here, values, is_clear = runs.working_directory, dict(runs.environment), True
    closing: list[str] = []  # the ends of the blocks of a shell that are open
    options: Sequence[str] = ()
    before = ";"
    for word, following in itertools.pairwise([*command_words(runs.program), ""]):
        name, equals, value = word.partition("=")
        if word in _BLOCKS or word.startswith("("):
            closing.append(_BLOCKS.get(word, ")"))
        elif closing and word.startswith(closing[-1]):
            closing.pop()
        if name in options or (word == "cd" and before.endswith(_BETWEEN)):
            path = _substituted(value if equals else following, values)
            here = posixpath.join(here, path)
            is_clear &= bool(path) and not closing
        elif equals and DECIDING.fullmatch(name):
            values[name] = _substituted(value, {name: "", **values})
            is_clear &= bool(values[name] or not value) and not closing
        elif word in _UNCLEAR or (word in _READS and before.endswith(_STARTS)):
            is_clear &= word in _READS and following.endswith("/activate")
        options = _MOVES.get(posixpath.basename(word), options)
        before = word
    return msgspec.structs.replace(
        runs,
        working_directory=posixpath.normpath(here),
        environment=tuple(values.items()),
        is_clear=is_clear and runs.is_clear,
    )


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
