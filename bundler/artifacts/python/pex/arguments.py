"""The user's arguments to pex: the ones that concern us are parsed, all others are passed on.

pex's own parser accepts ``-oF``, ``-o F``, ``--output-file=F``, unambiguous prefixes of long
options, and files with one argument per line, as ``@file``; what follows ``--`` is for the program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import InputOutputError, UsageError

# Long option -> the shortest prefix that pex accepts for it, and its short form.
_OUTPUT = ("--output-file", "--ou", "-o")
_PEX_ROOT = ("--pex-root", "--pex-ro", "")
_CACHE_DIR = ("--cache-dir", "--ca", "")
_PEX_PATH = ("--pex-path", "--pex-p", "")
_INHERIT_PATH = ("--inherit-path", "--inh", "")
# Options whose folders are packed completely; of a project, the backend decides what is packed.
_SOURCES = (
    ("--sources-directory", "--so", "-D"),
    ("--resources-directory", "--resources", "-R"),
    ("--package", "--packa", "-P"),
)
_PROJECTS = (("--project", "--proj", ""),)
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
# pex's only switch of one letter, with what follows it in the same word: -vvo F.
_TOGETHER = re.compile(r"(-v+)([^v].*)", re.DOTALL)
_MAX_NESTING = 10
_ASKS = ("-h", "--help", "-V", "--version", "--help-variables", "--docs", "--help-html")
# What pex would do with its own result before the state is in it.
_SCIE = "Build the PEX without it, then run `pex3 scie create` on the finished file."
_RC = "Remove it: Python cannot read the files that it creates."
_TOO_EARLY = {
    **dict.fromkeys(("--scie", "--par"), _SCIE),
    **dict.fromkeys(("--rc", "--pexrc", "--native-runtime"), _RC),
    "--seed": "Remove it: it would unpack the PEX without its state; run the finished file.",
}


@dataclass(frozen=True)
class PexArguments:
    """pex's arguments, parsed.

    output: the value of ``-o``, None if pex would run the program. rest: all others, in order.
    program: what follows ``--``. pex_root: the user's own, if given.
    """

    output: str | None
    rest: tuple[str, ...]
    program: tuple[str, ...] = ()
    pex_root: str | None = None

    @property
    def only_asks(self) -> bool:
        """Whether pex would only print information about itself."""
        return any(argument in _ASKS for argument in self.rest)

    @property
    def projects(self) -> tuple[Path, ...]:
        """The projects of which a build backend decides what is packed."""
        words = [
            Path(argument)
            for argument in self.rest
            if any(os.path.exists(os.path.join(argument, name)) for name in _PROJECT_FILES)
        ]
        found = dict.fromkeys([*self._named(_PROJECTS), *words])
        return tuple(folder for folder in found if folder.is_dir())

    @property
    def sources(self) -> tuple[Path, ...]:
        """The sources that pex packs completely."""
        return tuple(folder for folder in self._named(_SOURCES) if folder.is_dir())

    def _named(self, options: Sequence[tuple[str, str, str]]) -> Iterator[Path]:
        for position in range(len(self.rest)):
            for option in options:
                value, _ = _value(self.rest, position, option)
                package, at, parent = (value or "").rpartition("@")
                if option[2] == "-P" and at:
                    value = os.path.join(parent, package.replace(".", "/"))
                if value:
                    yield Path(value)

    @property
    def has_venv(self) -> bool:
        return any(argument.split("=")[0] in ("--venv", "--seed") for argument in self.rest)


def parse(arguments: Sequence[str]) -> PexArguments:
    """Parses pex's arguments. Raises `UsageError` for what is impossible before the state is
    embedded."""
    own, program = _split(list(arguments))
    output = pex_root = None
    rest: list[str] = []
    position = 0
    while position < len(own):
        argument = own[position]
        _refuse(argument)
        value, used = _value(own, position, _OUTPUT)
        if used:
            output = value
            position += used
            continue
        for option in (_PEX_ROOT, _CACHE_DIR):
            value, used = _value(own, position, option)
            pex_root = value or pex_root
        rest.append(argument)
        position += 1
    return PexArguments(output, tuple(rest), tuple(program), pex_root)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" in arguments:
        end = arguments.index("--")
        return list(_expanded(arguments[:end])), arguments[end + 1 :]
    return list(_expanded(arguments)), []


def _expanded(arguments: Sequence[str], depth: int = 0) -> Iterator[str]:
    for argument in arguments:
        if together := _TOGETHER.fullmatch(argument):
            yield together[1]
            yield f"-{together[2]}"
        elif not argument.startswith("@") or len(argument) == 1:
            yield argument
        elif depth == _MAX_NESTING:
            raise UsageError(f"{argument} includes itself.")
        else:
            yield from _expanded(_lines(Path(argument[1:])), depth + 1)


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).splitlines()
    except OSError as error:
        raise InputOutputError(
            f"The arguments in {path} cannot be read: {error.strerror}."
        ) from error


def _names(argument: str, option: tuple[str, str, str]) -> bool:
    whole, shortest, short = option
    return argument == short or (argument.startswith(shortest) and whole.startswith(argument))


def _value(
    arguments: Sequence[str], position: int, option: tuple[str, str, str]
) -> tuple[str | None, int]:
    """The option's value if it is here, and how many arguments it consumes; 0 if not."""
    argument = arguments[position]
    name, equals, value = argument.partition("=")
    if _names(name, option) and equals:
        return value, 1
    if _names(argument, option):
        if position + 1 == len(arguments):
            raise UsageError(f"{argument} requires a value.")
        return arguments[position + 1], 2
    short = option[2]
    if short and argument.startswith(short) and not argument.startswith("--"):
        return argument[len(short) :], 1
    return None, 0


def _refuse(argument: str) -> None:
    name, _, value = argument.partition("=")
    if _names(name, _PEX_PATH) or (
        _names(name, _INHERIT_PATH) and value in ("", "prefer")  # which is the default value
    ):
        raise UsageError(
            f"With {argument}, Python may import another copy of the package, without its state.",
            hint="Remove it: pass the other code to pex, or use --inherit-path=fallback.",
        )
    if name in _TOO_EARLY and value != "none":
        raise UsageError(f"{name} runs on a PEX without its state.", hint=_TOO_EARLY[name])
