"""HTML that is escaped when it is built: what is not `Html` is text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from bundler.cli.console import hidden


class Html(str):
    """A piece of a page, which is not escaped again.

    Only our own style sheet and script become one without `filled`.
    """

    __slots__ = ()


def filled(template: str, *values: object, **named: object) -> Html:
    """A piece of a page: our own markup with values in it, which are escaped."""
    escaped = {name: text(value) for name, value in named.items()}
    return Html(template.format(*map(text, values), **escaped))


def text(content: object) -> Html:
    """Escaped text, or several pieces after each other; bidirectional and invisible characters are
    replaced by their names."""
    if isinstance(content, Html):
        return content
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Html("".join(map(text, content)))
    shown = hidden(str(content))
    if not shown.isprintable():
        shown = "".join(
            character if character.isprintable() or character in " \n" else repr(character)[1:-1]
            for character in shown
        )
    return Html(html.escape(shown))
