"""HTML that is escaped when it is built: only `Html` values can be part of a page."""

from __future__ import annotations

import html
from dataclasses import dataclass

from bundler.cli.console import hidden


@dataclass(frozen=True)
class Html:
    """A piece of a page."""

    source: str

    def __str__(self) -> str:
        return self.source


# Inserted without escaping: our own style and script, never untrusted text.
Markup = Html


def text(content: object) -> Html:
    """Escaped text; bidirectional and invisible characters are replaced by their names."""
    shown = hidden(str(content))
    if not shown.isprintable():
        shown = "".join(
            character if character.isprintable() or character in " \n" else repr(character)[1:-1]
            for character in shown
        )
    return Html(html.escape(shown))


def joined(*parts: Html) -> Html:
    return Html("".join(part.source for part in parts))


def element(name: str, /, *parts: Html, **attributes: str | float | bool) -> Html:
    """An element. In attribute names, ``_`` stands for ``-``; ``class_`` is ``class``."""
    return Html(f"<{name}{_attributes(attributes)}>{joined(*parts)}</{name}>")


def void(name: str, /, **attributes: str | float | bool) -> Html:
    """A void element."""
    return Html(f"<{name}{_attributes(attributes)}>")


def _attributes(attributes: dict[str, str | float | bool]) -> str:
    return "".join(
        f" {_name(name)}" if value is True else f' {_name(name)}="{text(value)}"'
        for name, value in attributes.items()
        if value is not False and value != ""
    )


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
