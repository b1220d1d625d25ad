"""Paths and words as messages show them, and as a shell or git accepts them."""

from __future__ import annotations

import os


def quoted(text: str) -> str:
    """Quotes a word for a shell command that a user can paste, as `shlex.quote` does.

    `shlex` imports `re`, which would slow down a hook that warns. A name with a line break or
    terminal control characters is written in octal.
    """
    plain = text.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    if text and plain.isascii() and (plain.isalnum() or not plain) and not text.startswith("-"):
        return text
    if not text.isprintable():
        escaped = "".join(map(_octal, os.fsencode(text)))
        return f"\"$(printf '{escaped}')\""
    return "'" + text.replace("'", "'\"'\"'") + "'"


_PLAIN = frozenset(b"/._-:(),+@=~ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def _octal(byte: int) -> str:
    return chr(byte) if byte in _PLAIN else f"\\{byte:03o}"


def printable(path: bytes) -> str:
    """A path for a message: on one line, whatever its name holds."""
    text = os.fsdecode(path)
    return text if text.isprintable() and text.strip() == text else repr(text)


def literal(path: bytes) -> str:
    """A path for a git command that a user can paste, taken literally."""
    text = os.fsdecode(path)
    # After ":/" git takes most punctuation for further magic.
    plain_start = text[:1].isalnum() or text.startswith(".")
    special = not plain_start or any(character in text for character in "*?[\\")
    return f":(top,literal){text}" if special else f":/{text}"


# --- starting git ---------------------------------------------------------------------------
