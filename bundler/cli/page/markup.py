"""HTML that is escaped when it is built: what is not `Html` is text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from bundler.cli.console import hidden, visible


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
    """Escaped text, in which everything is visible, or several pieces after each other."""
    if isinstance(content, Html):
        return content
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Html("".join(map(text, content)))
    return Html(html.escape(visible(hidden(str(content)))))
