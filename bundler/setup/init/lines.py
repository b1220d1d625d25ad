"""Blocks of lines in files that are lists of patterns: ``.gitignore``, ``.dockerignore``.

A block is a comment of ours, by which it is found again, and the patterns below it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundler.setup.file_edits import newline_of


def add_block(text: str | None, comment: str, patterns: Sequence[str]) -> str | None:
    """The text with the missing patterns in a block at its end; unchanged if none is missing."""
    lines = (text or "").splitlines()
    missing = [pattern for pattern in patterns if not present(pattern, lines)]
    if not missing:
        return text
    newline = newline_of(text or "")
    ours = newline.join([f"# {comment}", *missing, ""])
    if not text:
        return ours
    head = text if text.endswith("\n") else text + newline
    # A blank line separates the block from what is above it.
    return head + newline + ours


def remove_block(text: str | None, comment: str, patterns: Sequence[str]) -> str | None:
    """The text without our block; None if nothing else was in it."""
    lines = (text or "").splitlines(keepends=True)
    start = next((at for at, line in enumerate(lines) if line.strip() == f"# {comment}"), None)
    if start is None:
        return text
    end = start + 1
    while end < len(lines) and lines[end].strip() in patterns:
        end += 1
    if start and not lines[start - 1].strip():
        start -= 1
    return "".join(lines[:start] + lines[end:]) or None


def present(pattern: str, lines: Sequence[str]) -> bool:
    """Whether a line has the same meaning, in one of the usual forms, and no later one undoes
    it."""
    same = [line for line in lines if _plain(line.strip().removeprefix("!")) == _plain(pattern)]
    return bool(same) and not same[-1].lstrip().startswith("!")


def _plain(pattern: str) -> str:
    return pattern.strip().removeprefix("**/").rstrip("/")
