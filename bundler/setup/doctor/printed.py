"""Formats fixes so that each is complete and safe to paste where the user is.

A fix is a command for the shell, a table for pyproject.toml below a line that says so, or, if the
user has to decide, a message.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundler.guard.fixes import append_command, file_from_here
from bundler.setup.init.pyproject import toml_block


def command(text: str, root: Path) -> str:
    """A command of ours for this project that works in the user's directory."""
    return text if _is_here(root) else f"{text} --project {word(root)}"


def in_directory(text: str, root: Path) -> str:
    """Makes a command that works in the current directory work in this one."""
    return text if _is_here(root) else f"(cd {word(root)} && {text})"


def word(root: Path, name: str = "") -> str:
    """A file of a project as a word for the shell."""
    return file_from_here(os.fsencode(root), os.fsencode(name or "."))


def add_lines(root: Path, name: str, lines: Sequence[str]) -> str:
    path = root / name
    has_text = path.exists() and path.stat().st_size > 0
    return append_command(word(root, name), lines, has_text=has_text)


def set_in_pyproject(path: Sequence[str], value: Any) -> str:
    """The instruction that sets a key, with the complete new value, so that pasting it loses
    nothing."""
    return f"Set this in pyproject.toml:\n{toml_block(path, value)}".rstrip("\n")


def _is_here(root: Path) -> bool:
    try:
        return os.path.samefile(root, Path.cwd())
    except OSError:
        return False
