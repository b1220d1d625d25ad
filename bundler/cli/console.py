"""Terminal output: lines, colours, tables. Contains no decisions."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from bundler.errors import BundlerError
from bundler.system import wording
from bundler.system.times import is_future, seconds_of

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_GAP = "  "
# On narrower terminals, text is not wrapped.
_NARROWEST = 40
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

size = wording.size


class Console:
    """An output stream that knows whether it supports colours and Unicode.

    hide: removes the live display, which another console's line would mix with; None without one.
    """

    hide: ClassVar[Callable[[], None] | None] = None

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._colour = _wants_colour(stream, environ)
        self._unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._live: RichConsole | None = None

    def above(self, live: RichConsole | None) -> None:
        """Writes the following lines above a live display; None ends that."""
        self._live = live

    def line(self, text: str = "") -> None:
        """Writes a line; escapes characters that the stream cannot show or that control it."""
        encoding = self._stream.encoding or "ascii"
        shown = hidden(text).encode(encoding, "backslashreplace").decode(encoding)
        if self._live is not None:
            from rich.text import Text

            self._live.print(Text.from_ansi(shown), soft_wrap=True)
            return
        if Console.hide is not None:
            Console.hide()
        self._stream.write(f"{shown}\n")
        self._stream.flush()

    def paragraph(
        self, text: str, *styles: str, indent: str = "", first: str | None = None
    ) -> None:
        """Writes indented text, wrapped to the width of a terminal.

        styles: of the text. first: prefix of the first line, instead of the indentation.
        """
        begin = indent if first is None else first
        for line in self._broken(text, begin, indent):
            self.line(begin + self.styled(line, *styles))
            begin = indent

    def _broken(self, text: str, first: str, indent: str) -> list[str]:
        columns = self._columns()
        if columns is None or columns < _NARROWEST:
            return [text]
        begin = width(_COLOURS.sub("", first))
        broken: list[str] = []
        for part in text.split("\n"):
            broken += _in_lines(part, columns - begin, columns - len(indent))
            begin = len(indent)
        return broken

    def command(self, text: str) -> None:
        """Writes a CI command. Untrusted parts must have passed through `safe`."""
        encoding = self._stream.encoding or "ascii"
        shown = hidden(text).encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(f"{shown}\n")
        self._stream.flush()

    def styled(self, text: str, *styles: str) -> str:
        """The text in these styles, if colours are enabled."""
        if not self._colour or not styles:
            return text
        codes = ";".join(_CODES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def sign(self, unicode: str, plain: str) -> str:
        """A symbol, or its ASCII replacement if the stream has no Unicode."""
        return unicode if self._unicode else plain

    def tick(self) -> str:
        return self.styled(self.sign("✓", "ok"), "green", "bold")

    def cross(self) -> str:
        return self.styled(self.sign("✗", "x"), "red", "bold")

    def failure(self, error: BundlerError, *, advises: bool = True) -> None:
        title = self.styled(f"{error.title} ({error.exit_code})", "red", "bold")
        self.paragraph(
            safe(error.headline or error.what), indent="  ", first=f"{self.cross()} {title}: "
        )
        if error.where and error.where not in error.what:
            self.line(f"  Where: {safe(error.where)}")
        for rule, lines in error.details:
            self.line(f"  {safe(rule)}:")
            for line in lines:
                self.paragraph(safe(line), indent="      ", first="    ")
        if advises:
            self.reason(error.why, error.hint, indent="  ")

    def warning(self, what: str, why: str = "", fix: str = "", *, indent: str = "") -> None:
        """Prints a problem that does not make the command fail."""
        first = indent + self.styled("warning:", "yellow") + " "
        self.paragraph(safe(what), indent=f"{indent}  ", first=first)
        self.reason(why, fix, indent=f"{indent}  ")

    def reason(self, why: str, fix: str, *, indent: str) -> None:
        if why:
            self.paragraph(safe(why), indent=indent, first=f"{indent}Why: ")
        if fix:  # not wrapped, so that it can be copied
            first, *more = safe(fix).split("\n")
            self.line(f"{indent}Fix: {first}")
            for line in more:
                self.line(f"{indent}{line}")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
        """Prints aligned columns. right: headers of right-aligned columns, separated by spaces.

        If the terminal is too narrow, each row is printed as a block of lines.
        """
        cells = [[safe(cell) for cell in row] for row in rows]
        widths = [max(map(width, column)) for column in zip(headers, *cells, strict=True)]
        columns = self._columns()
        if columns is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > columns:
            for row in cells:
                self.line(self.styled(row[0], "bold"))
                told = [f"{name.lower()} {cell}" for name, cell in zip(headers, row, strict=True)]
                for line in _wrapped(told[1:], columns):
                    self.line(line)
            return
        flush = [header in right.split() for header in headers]
        self.line(self.styled(_aligned(headers, widths, flush), "bold"))
        for row in cells:
            self.line(_aligned(row, widths, flush))

    def _columns(self) -> int | None:
        """The terminal's width; None if the stream is not a terminal."""
        if not self._stream.isatty():
            return None
        import shutil

        return shutil.get_terminal_size().columns


def _aligned(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> str:
    padded = []
    for cell, whole, right in zip(cells, widths, flush, strict=True):
        padding = " " * (whole - width(cell))
        padded.append(padding + cell if right else cell + padding)
    return _GAP.join(padded).rstrip()


def _wrapped(parts: Sequence[str], columns: int) -> Iterator[str]:
    """The parts in indented lines, as many per line as fit."""
    line = ""
    for part in parts:
        if line and width(line) + len(_GAP) + width(part) > columns:
            yield line
            line = ""
        line = f"{line}{_GAP}{part}"
    if line:
        yield line


def _in_lines(text: str, first_room: int, room: int) -> Iterator[str]:
    line, left = "", first_room
    for number, word in enumerate(text.split(" ")):
        longer = f"{line} {word}" if number else word
        if width(longer) > left and (line or left < room):
            yield line.rstrip()
            line, left = word, room
        else:
            line = longer
    yield line


def short(digest: str) -> str:
    """As much of a digest, a version or a commit as distinguishes it."""
    return digest[:12]


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(character)
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def hidden(text: str) -> str:
    """The text without the credentials of the URLs in it."""
    if "@" not in text and "=" not in text and "#" not in text:
        return text
    from bundler.system.url_credentials import without_credentials

    return without_credentials(text)


def as_json(value: Any, **options: Any) -> str:
    """The value as JSON, without the credentials of URLs in its strings."""
    import json

    return json.dumps(_without_credentials(value), **options)


def _without_credentials(value: Any) -> Any:
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, dict):
        return {hidden(name): _without_credentials(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_credentials(item) for item in value]
    return value


def visible(text: str) -> str:
    """The text with bidirectional and other invisible characters replaced by their names."""
    return "".join(
        character if character.isprintable() or character in " \n" else repr(character)[1:-1]
        for character in text
    )


def safe(text: str) -> str:
    """Untrusted text without sequences that control a terminal or a CI log."""
    # `::command::` at the start of a line is an instruction to GitHub Actions, `##[` and `##vso[`
    # to Azure Pipelines.
    return "\n".join(
        line.replace("::", ": :", 1)
        if line.lstrip().startswith("::")
        else line.replace("##", "# #")
        for line in visible(text).split("\n")
    )


def safe_line(text: str) -> str:
    """The same as one line: a name must not look like lines of ours."""
    return safe(text).replace("\n", "\\n")


def age(moment: str | None, now: float | None = None) -> str:
    """The human-readable age of an RFC 3339 time; a dash if it is unknown."""
    if moment is None:
        return "-"
    passed = (time.time() if now is None else now) - seconds_of(moment)
    if is_future(passed):
        return "future"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= 2 * length:
            return f"{passed / length:.0f}{unit}"
    return f"{max(0, passed):.0f}s"


def _wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"
