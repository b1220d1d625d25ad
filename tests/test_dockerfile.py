"""Dockerfiles and .dockerignore are read as the engines read them."""

from __future__ import annotations

import pytest

from bundler.dockerfile import IgnoreRules, instructions

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM python:3.11 AS base

run echo one \\
    # a comment in between

    && echo two
COPY --chown=1:1 --from=base /a /b
COPY ["with space", "to/"]
RUN <<EOF cat
FROM nothing
EOF
CMD ["x"]
"""


def test_instructions_with_lines_comments_and_here_documents() -> None:
    found = list(instructions(DOCKERFILE))
    assert [(each.line, each.word) for each in found] == [
        (2, "FROM"),
        (4, "RUN"),
        (8, "COPY"),
        (9, "COPY"),
        (10, "RUN"),
        (13, "CMD"),
    ]
    assert found[1].arguments == "echo one && echo two"
    assert found[2].flags == {"chown": "1:1", "from": "base"}
    assert found[2].operands == ("/a", "/b")
    assert found[3].operands == ("with space", "to/")
    assert found[4].body == "FROM nothing"


def test_another_escape_character() -> None:
    (run,) = instructions("# escape=`\nRUN a `\n  C:\\x\n")
    assert run.arguments == "a C:\\x"


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("", "a", False),
        ("a", "a", True),
        ("/a", "a", True),
        ("./a", "a", True),
        ("a", "b/a", False),
        ("a", "a/b/c", True),
        ("**/a", "a", True),
        ("**/a", "x/y/a/b", True),
        ("**/.*", "src/shop/defs/.local_defs_state/k/state", True),
        ("*.md", "x.md", True),
        ("*.md", "d/x.md", False),
        ("a?c", "abc", True),
        ("[ab]c", "bc", True),
        ("a/**", "a/b", True),
        ("a/**/z", "a/z", True),
        ("#a", "#a", False),
        ("*\n!b", "b", False),
        ("*\n!b", "b/c", False),
        ("*\n!b\nb/c", "b/c", True),
        ("*\n!b/c", "b/d", True),
        ("\ufeffa", "a", True),
        ("  a  ", "a", True),
        ("a+b", "a+b", True),
    ],
)
def test_ignore_rules(rules: str, path: str, ignored: bool) -> None:
    assert IgnoreRules(rules).ignores(path) is ignored
