"""Troubleshooting has every class of errors, and quotes messages as the program prints them."""

from __future__ import annotations

import ast
import functools
import inspect
import re

import pytest

from bundler import errors
from tests.support.environments import ROOT

_PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
_MESSAGES = re.findall(r"^### (.*)$", _PAGE, re.MULTILINE)
_CLASSES = [kind for kind in vars(errors).values()
            if inspect.isclass(kind) and "title" in vars(kind)]  # fmt: skip


@functools.cache
def _texts() -> str:
    """Every text in the program, with f-strings in the pieces between what they fill in."""
    return "\0".join(
        node.value
        for path in (ROOT / "bundler").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@pytest.mark.parametrize("kind", _CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_of_errors_has_a_section(kind: type[errors.BundlerError]) -> None:
    title = kind.title.removesuffix(" in state-bundler")
    code = rf" \({kind.exit_code}\)" if hasattr(kind, "exit_code") else ""
    assert re.search(rf"^## {title}{code}", _PAGE, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("message", _MESSAGES)
def test_a_quoted_message_is_one_that_the_program_prints(message: str) -> None:
    pieces = [piece for piece in message.split("…") if len(piece) > 2]
    assert pieces
    for piece in pieces:
        assert piece in _texts() or piece.strip(" .:") in _texts(), piece
