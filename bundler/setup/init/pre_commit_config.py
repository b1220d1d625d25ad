"""Adds an item to ``repos`` of ``.pre-commit-config.yaml``.

ruamel.yaml locates the nodes; the item is inserted as lines, so that every comment, quote and line
break stays. The result is parsed again: it must be what was there with one more item. Otherwise the
next place is tried, and after the last one the file is refused, as is a list in brackets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from bundler.errors import ConfigurationError
from bundler.setup.file_edits import newline_of

FILE = ".pre-commit-config.yaml"
_REPOS = "repos"
_BYTE_ORDER_MARK = "\ufeff"
_SKIP = "or skip it: state-bundler init --without pre-commit"
_HINT = f"Add the hook by hand, {_SKIP}"


def load(text: str) -> dict[str, Any]:
    """The configuration; empty for an empty file.

    Raises `ConfigurationError` for what pre-commit does not read either.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text.removeprefix(_BYTE_ORDER_MARK))
    except (YAMLError, ValueError) as error:  # ValueError: for an impossible date
        raise _refused(_said(error)) from error
    if data is None:
        return {}
    if isinstance(data, list):
        raise _refused(
            "is a list, the format of pre-commit before version 1",
            "Convert it: pre-commit migrate-config",
        )
    if not isinstance(data, dict):
        raise _refused("is not a mapping")
    if not isinstance(data.get(_REPOS, []), list | None):
        raise _refused("has a `repos` that is not a list")
    return data


def _refused(what: str, hint: str = _HINT) -> ConfigurationError:
    return ConfigurationError(f"{FILE} {what}; it was not changed.", hint=hint)


def _said(error: Exception) -> str:
    problem = str(getattr(error, "problem", None) or error).strip()
    if problem.startswith("but found another document"):
        return "contains several YAML documents, which pre-commit cannot read"
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark is not None else ""
    return f"cannot be read: {line}{problem.splitlines()[0]}"


def hook_ids(data: dict[str, Any]) -> Iterator[str]:
    for repo in data.get(_REPOS) or ():
        hooks = repo.get("hooks") if isinstance(repo, dict) else None
        for hook in hooks if isinstance(hooks, list) else ():
            if isinstance(hook, dict):
                yield str(hook.get("id"))


def with_item(text: str, block: Sequence[str]) -> str:
    """With an item at the end of ``repos``. block: its lines, not indented.

    Raises `ConfigurationError` if it cannot be inserted safely.
    """
    before = load(text)
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    item = load("repos:\n" + "\n".join(block))[_REPOS][0]
    expected = {**before, _REPOS: [*(before.get(_REPOS) or ()), item]}
    for changed in _candidates(text.removeprefix(_BYTE_ORDER_MARK), block):
        with suppress(ConfigurationError):
            if load(changed) == expected:
                return mark + changed
    raise _refused(
        "cannot be changed safely: only a list with each item on its own line can",
        f"Add this to {_REPOS} by hand, {_SKIP}\n{json.dumps(item)}",
    )


def _candidates(text: str, block: Sequence[str]) -> Iterator[str]:
    """The text with the item at each place that may be right."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode

    root = YAML(typ="safe", pure=True).compose(text)
    pairs = root.value if isinstance(getattr(root, "value", None), list) else []
    found = next((pair for pair in pairs if pair[0].value == _REPOS), None)
    if found is None:
        yield _with_lines(text, len(text) - 1, ["repos:", *_indented(block, "  ")])
        return
    key, repos = found
    start, end = repos.start_mark.index, repos.end_mark.index
    # A null, which may have an anchor or a tag, or a list without a comment in it.
    if isinstance(repos, ScalarNode) or not text[start:end].strip("[] \r\n"):
        yield _with_lines(text, key.end_mark.index, _indented(block, "  "))
        emptied = text[:start].rstrip(" ") + text[end:]
        yield _with_lines(emptied, key.end_mark.index, _indented(block, "  "))
    elif not repos.flow_style:
        indented = _indented(block, _indentation(text, start))
        yield _with_lines(text, _without_comments(text, end), indented)
        yield _with_lines(text, len(text[:end].rstrip()), indented)


def _without_comments(text: str, end: int) -> int:
    """The end of the last line above that is not a comment."""
    at = len(text[:end].rstrip())
    while text[(start := text.rfind("\n", 0, at) + 1) : at].lstrip().startswith("#"):
        at = len(text[:start].rstrip())
    return at


def _indentation(text: str, start: int) -> str:
    """What precedes the first dash of a block list, which may have an anchor."""
    at = start if text[start] == "-" else text.index("\n", start)
    dash = text.index("-", at)
    return text[text.rfind("\n", 0, dash) + 1 : dash]


def _indented(lines: Sequence[str], indent: str) -> list[str]:
    return [indent + line for line in lines]


def _with_lines(text: str, at: int, lines: Sequence[str]) -> str:
    """With lines after the one that an offset is in."""
    newline = newline_of(text)
    ours = newline.join([*lines, ""])
    end = text.find("\n", at)
    if end < 0:
        return text + (newline if text else "") + ours
    return text[: end + 1] + ours + text[end + 1 :]
