"""How an image's program starts, as far as its configuration says."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
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
# After these, a shell certainly runs the next command; in a subshell after the last one.
_BETWEEN = ("&", ";", "(")
# Whether and how often it runs what is inside of these, it decides itself.
_BLOCKS = {"if": "fi", "case": "esac", "{": "}"}
_BLOCKS |= dict.fromkeys(("for", "while", "until", "select"), "done")
_BLOCKS |= dict.fromkeys(("[", "[[", "test"), ";")  # with `&&`
# What may change the directory or the variables in a way that `_moved` does not follow.
_UNCLEAR = ("cd", "eval", "popd", "pushd", "su")
_READS = (".", "source")
_ACTIVATE = "bin/activate"
_STARTS = (*_BETWEEN, "|")
_BEFORE_COMMANDS = ("{", "then", "do", "else", "if", "elif", "while", "until", "!")
_PUNCTUATION = frozenset("();&|")
# What starts the image's program, if anything on its command line does.
_PROGRAM = re.compile(
    r"((.*/)?(dagster(-[a-z]+)?|dg|uv|python[0-9.]*|gunicorn|uvicorn|hypercorn|celery|flask)|\$@)$"
)
_MAX_SCRIPTS = 4
_MAX_VALUE = 32_768  # so that a script cannot double a value without end
# Where a script is, as it finds out itself, with or without links in the path.
_OWN_NAME = r'"?\$(?:0|\{0\}|BASH_SOURCE|\{BASH_SOURCE(?:\[0\])?\})"?'
_OWN_FOLDER = re.compile(
    rf"\$\( ?dirname (?:-- )?{_OWN_NAME} ?\)|`dirname {_OWN_NAME}`|\$\{{0%/\*\}}"
)
_OWN_REAL_FOLDER = re.compile(
    rf'\$\(dirname (?:-- )?"?\$\((?:readlink -f|realpath) (?:-- )?{_OWN_NAME}\)"?\)'
)
_REAL_FOLDER = re.compile(
    r'\$\( ?cd (?:-- )?"?([^"$()~-][^"$()]*?)"?(?: *&?> ?/dev/null)? && pwd(?: -P)? ?\)'
)
_HERE = re.compile(r"\$\(pwd\)|`pwd`")
# What is no command: the lines after `cat <<END`, and comments outside of quotes.
_DOCUMENT = re.compile(
    r"(\b(?:cat|tee)\b[^\n;]{0,99})<<-?[ \t]*(['\"]?)(\w+)\2([^\n]*)\n(?:.*?\n)??\t*\3(?=\n|$)",
    re.DOTALL,
)
_COMMENT = re.compile(r"""("(?:\\.|[^"\\])*"|'[^']*'|\\.)|(?<![^\s;&|()])\#[^\n]*""", re.DOTALL)
# The variables that decide from where Python and Dagster import.
DECIDING = re.compile(
    r"PYTHON(HOME|PATH|SAFEPATH|USERBASE)|DAGSTER_(EMPTY_)?WORKING_DIRECTORY"
    r"|PATH|HOME|VIRTUAL_ENV|UV_PROJECT_ENVIRONMENT"
)
_NAME = re.compile(r"[A-Za-z_]\w*\+?")
# What only a shell can say, in a path: options, homes, variables and what follows.
_UNKNOWN = re.compile(r"^[-~]|[$`;&|()]")
_OPEN = "$"  # the value of a variable that only a shell knows
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
        rest = self._options_of_dagster()
        is_empty = self.variable("DAGSTER_EMPTY_WORKING_DIRECTORY").lower() in _ON
        if is_empty or "--empty-working-directory" in rest:
            return None
        directory = _substituted(self._named(rest), dict(self.environment))
        return posixpath.normpath(posixpath.join(self.working_directory, directory))

    def is_code_directory_open(self) -> bool:
        """Whether only a shell knows the directory that Dagster is given."""
        named = self._named(self._options_of_dagster())
        return bool(named) and not _substituted(named, dict(self.environment))

    def _options_of_dagster(self) -> Sequence[str]:
        words = command_words(self.program)
        at = next((i for i, word in enumerate(words) if _is(_DAGSTER, word)), len(words))
        return words[at + 1 :]

    def _named(self, words: Sequence[str]) -> str:
        short = (word[2:] for word in words if re.match(r"-d[^-]", word))
        found = (*_values(words, _DAGSTER_OPTIONS), *short)
        return next(iter(found), self.variable("DAGSTER_WORKING_DIRECTORY"))


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
    found = expanded(_HERE.sub("$PWD", text), values)
    return "" if _UNKNOWN.search(found) or len(found) > _MAX_VALUE else found


_VARIABLE = re.compile(
    r"\$(?:\{(\w+)(?::?([-+?])([^${}]*)|([^\w$}][^$}]*))?\}|(\w+))"  # the fourth: any other form
)
_MAX_NESTED = 4


def expanded(text: str, values: Mapping[str, str], unknown: str | None = None) -> str:
    """The text with its variables replaced, as shells, Dockerfiles and Compose write them.

    unknown: what replaces a variable without a value or default, or in another form; its name by
    default.
    """

    def replaced(found: re.Match[str]) -> str:
        name, operator, word, other = found[1] or found[5], found[2], found[3], found[4]
        known = None if other else values.get(name)
        if operator == "+":
            return word if known else ""
        if operator == "-" and not known:
            return str(word)
        if known is None:
            return f"${{{name}}}" if unknown is None else unknown
        return known

    for _ in range(_MAX_NESTED):
        text = _VARIABLE.sub(replaced, text)
    return text


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
    commands = _COMMENT.sub(r"\1", _DOCUMENT.sub(r"\1\4", script)).replace("\\\n", " ")
    split = shlex.shlex(commands.replace("\n", " ; "), posix=True, punctuation_chars="();&|")
    split.whitespace_split, split.commenters = True, ""
    try:
        return list(split)
    except ValueError:
        return []


def runs_as(config: Mapping[str, object]) -> RunsAs:
    """Parses the part of an image's ``config`` object that says how its program starts."""
    variables = [str(entry).partition("=") for entry in _strings(config.get("Env"))]
    return RunsAs(
        working_directory=str(config.get("WorkingDir") or "/"),
        environment=tuple((name, value) for name, _, value in variables),
        program=(*_strings(config.get("Entrypoint")), *_strings(config.get("Cmd"))),
        user=str(config.get("User") or ""),
    )


def followed(runs: RunsAs, read: Callable[[str], tuple[str, bytes] | None]) -> RunsAs:
    """The same start after what its command line, and the scripts that it runs, do to the directory
    and the variables. The program's words are then those of the last script.

    read: returns the path without links, and the content, of a script, by its absolute path.
    """
    runs = _moved(runs)
    for _ in range(_MAX_SCRIPTS):
        found = _script(runs, read)
        if found is None:
            break
        runs = _moved(msgspec.structs.replace(runs, program=found))
    return msgspec.structs.replace(
        runs, is_clear=runs.is_clear and not runs.is_code_directory_open()
    )


def _script(
    runs: RunsAs, read: Callable[[str], tuple[str, bytes] | None]
) -> tuple[str, ...] | None:
    """The script that the program is, as a shell's ``-c``; None if it is none."""
    words = command_words(runs.program)
    for at, word in enumerate(words):
        is_program = at == 0 and "." not in word and not _is(_NO_SCRIPT, word)
        if not (is_program or is_script(word)) or _is_only_a_step(words, at):
            continue
        folders = [""] if "/" in word else runs.variable("PATH").split(":")
        for folder in folders:
            path = posixpath.join(runs.working_directory, folder, word)
            real, content = read(path) or (path, b"")
            text = content.decode(errors="replace")
            first = text.partition("\n")[0]
            is_marked = first.startswith("#!")
            is_known = bool(_words_of(text))
            if (is_marked and not _RUNS_SHELL.search(first)) or not (is_marked or is_known):
                continue
            text = _with_own_folder(text, path, real) if is_known else "eval"  # which does anything
            return ("sh", "-c", text, *words[at + 1 :])
    return None


def _with_own_folder(text: str, path: str, real: str) -> str:
    text = _OWN_REAL_FOLDER.sub(lambda _: posixpath.dirname(real), text)
    text = _OWN_FOLDER.sub(lambda _: posixpath.dirname(path), text)
    return _REAL_FOLDER.sub(lambda found: posixpath.join("$PWD", found[1]), text)


def _is_only_a_step(words: Sequence[str], at: int) -> bool:
    """Whether a shell goes on after a command."""
    after = "".join(word for word in words[at:] if _PUNCTUATION.issuperset(word)).rstrip(";)")
    return words[at - 1 : at] != ["exec"] and bool(after)


def _is_for_a_step(words: Sequence[str]) -> bool:
    """Whether these begin with a variable for one command alone, after which the program starts."""
    end = next((i for i, word in enumerate(words) if _PUNCTUATION.issuperset(word)), len(words))
    is_step = "exec" not in words[:end] and words[end : end + 1] != ["&"]
    return is_step and any("=" not in it for it in words[:end]) and _has_program(words[end:])


def is_script(path: str) -> bool:
    """Whether an image may start by a shell's script of this name."""
    folder, name = posixpath.split(path)
    return _SCRIPT_NAME.search(name) is not None or bool(folder and name and "." not in name)


def _moved(runs: RunsAs) -> RunsAs:
    """In the directory to which its command line changes, with the variables that it sets."""
    shell = _Shell(runs)
    options: Sequence[str] = ()
    before, command = ";", ""
    words = command_words(runs.program)
    for at, (word, following) in enumerate(itertools.pairwise([*words, ""])):
        name, equals, value = word.partition("=")
        starts = before.endswith(_STARTS) or before in _BEFORE_COMMANDS
        command = word if starts else command
        shell.enter_or_leave(word, starts=starts)
        if _PUNCTUATION.issuperset(word):
            shell.fork_or_return(words, at)
        elif name in options or (word == "cd" and before.endswith(_BETWEEN)):
            shell.change_directory(value if equals else following)
        elif equals and _NAME.fullmatch(name):
            if not (("=" in command or command == "env") and _is_for_a_step(words[at:])):
                shell.assign(name, value)
        elif command == "unset" and _NAME.fullmatch(word):
            shell.assign(word, "")
        elif word in _READS and starts:
            shell.activate(following)
        elif word in _UNCLEAR:
            shell.is_clear = False
        options = _MOVES.get(posixpath.basename(word), options)
        before = word
    return msgspec.structs.replace(
        runs,
        working_directory=posixpath.normpath(shell.here),
        environment=tuple(shell.values.items()),
        is_clear=shell.is_clear and runs.is_clear,
    )


class _Shell:
    """What a shell's words do to its directory and its variables."""

    def __init__(self, runs: RunsAs) -> None:
        self.here = self._last = runs.working_directory
        self.values = {**dict(runs.environment), "PWD": self.here}
        self.is_clear = True
        self._blocks: list[str] = []  # the ends of those that are open
        self._outside: list[tuple[int, str, dict[str, str]]] = []  # what subshells began with

    def enter_or_leave(self, word: str, *, starts: bool) -> None:
        blocks = self._blocks
        end = blocks[-1] if blocks else None
        if (starts and word == end) or (end == ";" and word.startswith(";")):
            blocks.pop()
        elif starts and word in _BLOCKS:
            blocks.append(_BLOCKS[word])

    def fork_or_return(self, words: Sequence[str], at: int) -> None:
        for mark in words[at]:
            if mark == "(":
                self._outside.append((at, self.here, dict(self.values)))
            elif mark == ")" and self._outside:
                began, here, values = self._outside.pop()
                if (here, values) != (self.here, self.values):
                    is_inside = _has_program(words[began:at])
                    self.is_clear &= _has_program(words[at:]) and not is_inside
                    self.here, self.values = here, values

    def change_directory(self, to: str) -> None:
        path = self._last if to == "-" else _substituted(to, self.values)
        self.here, self._last = posixpath.normpath(posixpath.join(self.here, path)), self.here
        self.values["PWD"] = self.here
        self.is_clear &= bool(path) and not self._blocks

    def assign(self, name: str, value: str) -> None:
        if name.endswith("+"):
            name = name[:-1]
            value = f"${{{name}}}{value}"
        new = _substituted(value, {name: "", **self.values})
        is_known = bool(new or not value) and not self._blocks
        if not DECIDING.fullmatch(name):
            self.values[name] = new if is_known else _OPEN
        elif is_known:
            self.values[name] = new
        else:
            self.is_clear = False

    def activate(self, path: str) -> None:
        path = _substituted(path, self.values)
        self.is_clear &= path.endswith(_ACTIVATE)
        folder = posixpath.join(self.here, posixpath.dirname(path))
        self.values["PATH"] = f"{folder}:{self.values.get('PATH', '')}"


def _has_program(words: Sequence[str]) -> bool:
    return any(map(_PROGRAM.match, words))


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
