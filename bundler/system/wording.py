"""Words that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 state``, ``2 states``. For nouns that take an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
