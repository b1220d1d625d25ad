"""Adds an item to ``repos`` of ``.pre-commit-config.yaml``, in any YAML style.

ruamel.yaml locates the nodes; the item is inserted as text, so that every comment, quote and line
break stays. The result is parsed again: it must be what was there with one more item, otherwise the
file is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bundler.errors import ConfigurationError
from bundler.setup.file_edits import newline_of

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

FILE = ".pre-commit-config.yaml"
_REPOS = "repos"
_BYTE_ORDER_MARK = "\ufeff"
_HINT = "Add the hook by hand, or skip it: state-bundler init --without pre-commit"


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
    """The hooks that a configuration names."""
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
    body = text.removeprefix(_BYTE_ORDER_MARK)
    item = load("repos:\n" + "\n".join(block))[_REPOS][0]
    changed = mark + _put_in(body, block, json.dumps(item), newline_of(body))
    expected = {**before, _REPOS: [*(before.get(_REPOS) or ()), item]}
    try:
        is_right = load(changed) == expected
    except ConfigurationError:
        is_right = False
    if not is_right:
        raise _refused("cannot be changed safely")
    return changed


def without_item(text: str, items: Sequence[Any]) -> str | None:
    """Without the first of these items that is in ``repos`` in flow style; None if none is."""
    data = load(text)
    body = text.removeprefix(_BYTE_ORDER_MARK)
    repos = data.get(_REPOS) or []
    for item in items:
        written = json.dumps(item)
        for piece in (f", {written}", f"{written}, ", written):
            if item in repos and piece in body:
                rest = text.replace(piece, "", 1)
                left = [each for each in repos if each != item]
                if load(rest) == {**data, _REPOS: left}:
                    return rest
    return None


def _put_in(text: str, block: Sequence[str], flow: str, newline: str) -> str:
    """The text with the item, which is given in both styles."""
    root = _root(text)
    repos = root.repos if root else None
    if root is None or (repos is None and not root.flow):
        head = text if not text or text.endswith("\n") else text + newline
        return head + newline.join(["repos:", *_indented(block, "  "), ""])
    if repos is None:
        pair = f'"repos": [{flow}]'
        return _inserted(text, root.end, pair if text[root.end - 1] == "{" else f", {pair}")
    if any(True for _ in repos.children()):
        if repos.flow:
            return _inserted(text, repos.end, f", {flow}")
        end = len(text[: repos.end].rstrip())  # without the blank lines below a text
        return _with_lines(text, end, _indented(block, repos.indentation(text)), newline)
    start, end = repos.start, int(repos.events[-1].end_mark.index)
    if text[start:end].strip(" []\r\n") and repos.flow:  # a comment in an empty list
        return _inserted(text, end - 1, flow)
    if root.flow:
        return f"{text[:start].rstrip(' ')} [{flow}]{text[end:]}"
    if start == end:  # an unwritten null has the position of what comes next
        return _with_lines(text, root.end_of_key, _indented(block, "  "), newline)
    emptied = text[:start].rstrip(" ")
    return _with_lines(emptied + text[end:], len(emptied), _indented(block, "  "), newline)


def _inserted(text: str, at: int, piece: str) -> str:
    return text[:at] + piece + text[at:]


def _indented(lines: Sequence[str], indent: str) -> list[str]:
    return [indent + line for line in lines]


def _with_lines(text: str, at: int, lines: Sequence[str], newline: str) -> str:
    """With lines after the one that an offset is in."""
    end = text.find("\n", at)
    if end < 0:
        return text + newline + newline.join([*lines, ""])
    return text[: end + 1] + newline.join([*lines, ""]) + text[end + 1 :]


@dataclass(frozen=True)
class _Node:
    """A mapping, a list or a scalar, built from the parser's events."""

    events: list[Event]

    @property
    def start(self) -> int:
        return int(self.events[0].start_mark.index)

    @property
    def flow(self) -> bool:
        """Whether it is written in braces or brackets."""
        return bool(getattr(self.events[0], "flow_style", False))

    @property
    def end(self) -> int:
        """The end of the last thing in it, before its closing bracket."""
        inside = self.events[:-1] if len(self.events) > 1 else self.events
        marks = [(event.start_mark.index, event.end_mark.index) for event in inside]
        return int(next((end for start, end in reversed(marks) if end > start), self.start))

    def indentation(self, text: str) -> str:
        """What precedes the first dash of a block list, which may have an anchor."""
        at = self.start if text[self.start] == "-" else text.index("\n", self.start)
        dash = text.index("-", at)
        return text[text.rfind("\n", 0, dash) + 1 : dash]

    def children(self) -> Iterator[_Node]:
        inside = iter(self.events[1:-1])
        for event in inside:
            yield _complete(event, inside)


@dataclass(frozen=True)
class _PreCommitFile:
    """The outermost mapping. repos: the value of that key. end_of_key: of ``repos`` itself."""

    flow: bool
    end: int
    repos: _Node | None
    end_of_key: int


def _root(text: str) -> _PreCommitFile | None:
    """None for a file without a mapping."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import MappingStartEvent

    events = iter(YAML(typ="safe", pure=True).parse(text))
    first = next((event for event in events if isinstance(event, MappingStartEvent)), None)
    if first is None:
        return None
    root = _complete(first, events)
    children = list(root.children())
    keys = [getattr(key.events[0], "value", None) for key in children[::2]]
    if _REPOS not in keys:
        return _PreCommitFile(root.flow, root.end, None, 0)
    key, repos = children[2 * keys.index(_REPOS) :][:2]
    return _PreCommitFile(root.flow, root.end, repos, key.end)


def _complete(first: Event, following: Iterator[Event]) -> _Node:
    """The node that begins with an event."""
    from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

    events = [first]
    depth = int(isinstance(first, CollectionStartEvent))
    while depth:
        event = next(following)
        events.append(event)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
    return _Node(events)
