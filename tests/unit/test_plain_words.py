"""Messages, docstrings, comments and pages use the usual words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# A person is one there; and what has been released is not written again.
_OTHER_PAGES = ("CODE_OF_CONDUCT.md", "CHANGELOG.md")
_CODE = re.compile(r"^ *```.*?^ *```|`[^`]*`", re.DOTALL | re.MULTILINE)

# What not to write -> what to write instead.
_WORDS = {
    r"tells|told(?!:)|telling": "report, say, show",
    r"mend(s|ed|ing)?": "fix",
    r"whoever|whom": "the caller, the user, anyone who",
    r"what is (?-i:none)|for what is no|that (is|are) (?-i:none)": "None if it is not an X",
    r"lies|lain|lay": "is, are",
    r"took over|taken over|takes? over|takes? away|took away|taken away": "replace, reuse, remove",
    r"leave to": "permission to",
    r"asked (ahead|late)": "prefetched, deferred",
    r"sentences?": "message",
    r"of (its|their|one's|our|his) own(?= *[.,;:)]|$)": "its own X",
    r"for ever": "forever",
    r"beside": "next to",
    r"(the|a) person('s)?": "the user",
    r"comes? out green": "passes",
    r"at once": "immediately, atomically or concurrently",
    r"all of it|the whole of it": "everything",
    r"ended well|ends well": "succeeded",
    r"makes? no sense": "is invalid",
    r"is gone|are gone": "was removed",
    r"Mend|as is demanded": "Fix, the policy",
    r"comput\w+( [\w'`]+){0,3} again": "recompute",
    r"(holds?|held)( it| them)? against": "compare with",
    r"(group|section)s? that folds?": "collapsible group",
    r"starts? empty": "has no X yet",
    r"left out here": "omitted",
    r"by luck": "by accident",
    r"those who|asks? less": "users who, the operator of X; fewer requests",
    r"final slash|without a word": "trailing slash, without a message",
}
_LISTED = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
# A bare repository is git's own term, and code in a string is not prose.
_ALLOWED = re.compile(r"json\.dumps\(told\)|told = \{")
_BARE = re.compile(r"(?<!--)\bbare (?!repositor)")


def prose(source: str) -> Iterator[tuple[int, str]]:
    """The strings, docstrings, comments and names of tests of a module, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    if not any("#" in line and _matches(line) for line in source.splitlines()):
        return  # tokenize takes most of the time
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _matches(text: str) -> list[re.Match[str]]:
    return [*_LISTED.finditer(text), *_BARE.finditer(text)]


def _found(source: str) -> list[tuple[int, str]]:
    return [
        (line, match.group())
        for line, text in prose(source)
        for match in _matches(text)
        if not _ALLOWED.search(text)
    ]


def test_usual_words() -> None:
    found = [
        f"{path.relative_to(_ROOT)}:{line}: {word}"
        for folder in ("bundler", "tests", "benchmarks")
        for path in sorted((_ROOT / folder).rglob("*.py"))
        if path != Path(__file__)
        for line, word in _found(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def _unusual(page: str) -> list[tuple[int, str]]:
    """The same in Markdown, outside of code."""
    text = _CODE.sub(lambda found: "\n" * found[0].count("\n"), page)
    return [(text.count("\n", 0, match.start()) + 1, match.group()) for match in _matches(text)]


def test_usual_words_in_pages() -> None:
    pages = (path for folder in ("docs", "examples") for path in (_ROOT / folder).rglob("*.md"))
    found = [
        f"{path.relative_to(_ROOT)}:{line}: {word}"
        for path in sorted((*_ROOT.glob("*.md"), *pages))
        if path.name not in _OTHER_PAGES
        for line, word in _unusual(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_what_is_found_in_a_page() -> None:
    page = "`It lies`\n```console\n$ git status  # told\n```\nIt lies\nthere.\n"
    assert _unusual(page) == [(5, "lies")]


def test_what_is_found() -> None:
    source = '"""A line."""\nx = f"It lies {y} beside z."  # told at once\n'
    assert [word for _, word in _found(source)] == ["lies", "beside", "told", "at once"]
