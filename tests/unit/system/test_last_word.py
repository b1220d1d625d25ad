"""The reason that a program prints before it fails."""

from __future__ import annotations

import sys

import pytest

from bundler.errors import ToolFailed
from bundler.system import process

_HELP = "\nRun 'docker run --help' for more information\n"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", ""),
        ("one\n two \n\n", "two"),
        (f"docker: no such image\n{_HELP}", "docker: no such image"),
        ("docker: no such image.\nSee 'docker run --help'.\n", "docker: no such image."),
        (f"unknown flag: -x\n\nUsage:  docker run [OPTIONS] IMAGE\n{_HELP}", "unknown flag: -x"),
        ("Usage: fetch URL\n\nError: no URL\n", "Error: no URL"),
        ("Loading\nUsage: fetch URL\n", "Usage: fetch URL"),
        (_HELP, _HELP.strip()),
    ],
)
def test_the_help_that_docker_prints_after_its_error_is_not_the_reason(
    output: str, reason: str
) -> None:
    assert process.last_word(output) == reason


def test_a_failed_program_is_named_with_its_reason() -> None:
    fails = [sys.executable, "-c", f"import sys; sys.exit({f'no such image{chr(10)}{_HELP}'!r})"]
    with pytest.raises(ToolFailed, match=r"failed with exit code 1: no such image$"):
        process.check(fails)
