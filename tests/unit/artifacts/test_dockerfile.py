"""Dockerfiles and .dockerignore are read as the engines read them."""

from __future__ import annotations

import subprocess

import pytest

from bundler.artifacts.image.engine.dockerfile import (
    copied_paths,
    expanded,
    final_base,
    instructions,
    refreshing,
    refuse_copied_state,
)
from bundler.artifacts.image.engine.ignore import excluded, parse
from bundler.errors import ConfigurationError

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
    assert [(each.line, each.name) for each in found] == [
        (2, "FROM"),
        (4, "RUN"),
        (8, "COPY"),
        (9, "COPY"),
        (10, "RUN"),
        (13, "CMD"),
    ]
    assert found[1].text == "echo one     && echo two"
    assert found[2].text == "--chown=1:1 --from=base /a /b"
    assert found[4].body == "FROM nothing"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("ONBUILD RUN <<EOF\nCOPY x y\nEOF\nCOPY a /", [1, 4]),
        ("onbuild copy <<EOF /init.sql\nCOPY x y\nEOF\nCOPY a /", [1, 4]),
        ("ONBUILD LABEL a=<<EOF\nCOPY a /", [1, 2]),
        ("RUN <<EOF\n\tEOF\nEOF\t\nEOF \nCOPY x y\nEOF\nCOPY a /", [1, 7]),
        ("RUN <<-EOF\n\tx\n\t\tEOF\nCOPY a /", [1, 4]),
        ("RUN <<EOF\r\nx\r\nEOF\r\nCOPY a /\r", [1, 4]),
        ("RUN cat << EOF\nx\nEOF\nCOPY a /", [1, 4]),
        ("RUN cat <<- EOF\nCOPY a /", [1, 2]),
        ("RUN cat 3<<1.2-x <<'A b' <<E\"O\"F\n1.2-x\nA b\nEOF\nCOPY a /", [1, 5]),
        ("RUN (cat <<EOF)\nEOF\nEOF)\nCOPY a /", [1, 4]),
        ("RUN cat <<$EOF>x\n$EOF\n$EOF>x\nCOPY a /", [1, 4]),
        ("RUN echo it\\'s <<EOF\nx\nEOF\nCOPY a /", [1, 4]),
        ("RUN echo it's <<EOF\nCOPY a /", [1, 2]),
        ("RUN echo '<<EOF'\nCOPY a /", [1, 2]),
        ('RUN echo "a <<EOF"\nCOPY a /', [1, 2]),
        ("RUN sh -c'x <<EOF'\nCOPY a /", [1, 2]),
        ('RUN ["a", "<<EOF"]\nCOPY a /', [1, 2]),
        ("RUN cat<<EOF\nCOPY a /", [1, 2]),
        ("RUN cat <<<EOF\nCOPY a /", [1, 2]),
        ("RUN echo $((1<<2))\nCOPY a /", [1, 2]),
    ],
)
def test_a_heredoc_begins_and_ends_where_buildkit_sees_it(text: str, lines: list[int]) -> None:
    assert [each.line for each in instructions(text)] == lines


@pytest.mark.parametrize("character", "\r\v\f\x1c\x85\u2028")
def test_only_a_newline_ends_a_line(character: str) -> None:
    text = f'\ufeffLABEL a="x{character}COPY a /"\nCOPY b /'
    assert [(each.line, each.name) for each in instructions(text)] == [(1, "LABEL"), (2, "COPY")]
    assert [rule.text for rule in parse(f"a{character}b\r\nc\n")] == [f"a{character}b", "c"]


def test_another_escape_character() -> None:
    (run,) = instructions("# syntax=x\n# escape=`\nRUN a `\n  C:\\x\n")
    assert (run.line, run.text) == (3, "a   C:\\x")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("COPY src/very\\\n/long.py /x", ["src/very/long.py /x"]),
        ("COPY src/very\\ \t\n/long.py /x", ["src/very/long.py /x"]),
        ("COPY a\\\n\n  # c\n b /x", ["a b /x"]),
        ("COPY \\\n  a \\\n\t/x", ["a \t/x"]),
        ("COPY\ta /x", ["a /x"]),
        ("COPY a\\\\\nCOPY b", ["a\\\\", "b"]),
        ("COPY a /x \\", ["a /x"]),
    ],
)
def test_a_continued_line_is_joined_as_docker_does(text: str, found: list[str]) -> None:
    assert [(each.name, each.text) for each in instructions(text)] == [
        ("COPY", each) for each in found
    ]


@pytest.mark.parametrize(
    "line",
    [
        "RUN dg utils refresh-defs-state",
        "RUN cd a && dbt --quiet parse || true",
        "RUN <<EOF\nstate-bundler refresh\nEOF",
        "RUN dagster-dbt project \\\n  prepare-and-package --file x",
    ],
)
def test_a_run_that_makes_state_is_named_with_its_line(line: str) -> None:
    (sentence,) = refreshing(f"FROM x\n{line}\n", "Dockerfile")
    assert sentence.startswith("Dockerfile:2 creates state in a RUN")


@pytest.mark.parametrize("line", ["RUN dbt deps", "RUN parse", "COPY refresh-defs-state /x"])
def test_other_commands_are_not_named(line: str) -> None:
    assert list(refreshing(f"FROM x\n{line}\n", "Dockerfile")) == []


def test_a_copied_state_directory_is_refused_unless_it_comes_from_another_stage() -> None:
    refuse_copied_state("COPY --from=a /src/.local_defs_state /x\n", "Dockerfile")
    with pytest.raises(ConfigurationError, match=r"^Dockerfile:2 copies src/.local_defs_state"):
        refuse_copied_state('FROM x\nADD ["src/.local_defs_state", "/x"]\n', "Dockerfile")


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
    assert excluded(path, parse(rules)) is ignored


@pytest.mark.parametrize(
    ("text", "target", "base"),
    [
        ("FROM a\nRUN x\n", None, "a"),
        ("ARG W=1\nFROM --platform=linux/amd64 a:$W AS One\nFROM one\nUSER c\n", None, "a:1"),
        ("FROM a AS one\nENV A=b\nFROM b\nCMD c\n", "one", "a"),
        ("FROM a\nENV A=b\nFROM b\nCMD c\n", "0", "a"),
        ("ARG V=a\nFROM ${V:-b}\n", None, "given"),
        ("ARG W=a\nARG W\nFROM $W\n", None, "a"),
        ("FROM a\n", "none", ""),
        ("ENV A=b\n", None, ""),
        ("FROM\n", None, ""),
        ("", None, ""),
    ],
)
def test_the_base_of_the_stage_that_an_image_is_made_of(
    text: str, target: str | None, base: str
) -> None:
    assert final_base(text, target, {"V": "given"}) == base


REFERENCES = [
    "$A", "${A}", "x$A/y", "$AB", "${A}B", "$NO", "${NO}", "${A:-d}", "${NO:-d}", "${NO-d}",
    "${NO:-}",
    "${A:+d}", "${NO:+d}", "${A+d}", "${NO+d}", "${NO:-${A}}", "${NO:-$A}/x", "${NO:-${NEVER:-d}}",
    "${A:+-${B}}", "${NO:-a b}", "$A$B${NO:-c}", "${A:?e}", "no", "",
]  # fmt: skip


def test_variables_are_expanded_as_a_shell_does() -> None:
    """That is the grammar that Dockerfiles and Compose have in common."""
    values = {"A": "1", "B": "two", "AB": "3"}
    script = "".join(f'printf "%s\\0" "{text}"\n' for text in REFERENCES)
    said = subprocess.run(["sh", "-c", script], env=values, capture_output=True, check=True).stdout
    ours = [expanded(text, values, "") for text in REFERENCES]
    assert ours == said.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dist${A:+/more}", "dist/more"),
        ("$NO/x", "*/x"),
        ("${NO:-d}/x", "d/x"),
        ("${NO:-${A}}/x", "1/x"),
        ("${NO:-${NEVER}}/x", "*/x"),
        ("${A#x}/x", "*/x"),
    ],
)
def test_an_unknown_variable_of_a_copied_path_matches_anything(text: str, expected: str) -> None:
    assert list(copied_paths(f"FROM x\nARG A=1\nCOPY {text} /\n", {})) == [expected]
