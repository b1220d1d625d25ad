"""Whether a component reads its state, by its source."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from bundler.worker.state_use import unread

_HEAD = """\
import functools, json, os
class Base:
    def build_defs(self, context):
        return self.build_defs_from_state(context, None)
    def build_defs_from_state(self, context, state_path):
        return json.loads(state_path.read_text())
def wrapped(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner
"""
_FROM = "build_defs_from_state(self, context, state_path)"

READS = {
    "reads it": (_FROM, "return json.loads(state_path.read_text())"),
    "another name": ("build_defs_from_state(self, context, path)", "return open(path)"),
    "hands it on": (_FROM, "return self.parse(state_path)"),
    "gives it to its parent": (_FROM, "return super().build_defs_from_state(context, state_path)"),
    "an alias": (_FROM, "path = state_path; return path"),
    "if there is one": (_FROM, "return json.load(open(state_path)) if state_path else []"),
    "and": (_FROM, "found = state_path and json.load(open(state_path)); return found"),
    "or": (_FROM, "return self.local or state_path"),
    "an inner function": (_FROM, "f = lambda: open(state_path); return f()"),
    "by its folder": (_FROM, "return os.listdir(state_path.parent)"),
    "keyword only": ("build_defs_from_state(self, context, *, state_path)", "return [state_path]"),
    "any arguments": ("build_defs_from_state(self, *args, **kwargs)", "return 1"),
    "locals": (_FROM, "return use(**locals())"),
    "wraps build_defs": ("build_defs(self, context)", "return super().build_defs(context)"),
    "calls it": ("build_defs(self, context)", "return self.build_defs_from_state(context, 1)"),
}
IGNORES = {
    "does not mention it": (_FROM, "return self.fetch()"),
    "only tests it": (_FROM, "return [] if state_path is None else self.fetch()"),
    "asks for its truth": (_FROM, "return [] if not state_path or not self else self.fetch()"),
    "or in a test": (_FROM, "return [] if self.local or state_path else self.fetch()"),
    "asks whether it exists": (_FROM, "return self.fetch() if state_path.exists() else []"),
    "by os.path": (_FROM, "assert os.path.exists(state_path); return self.fetch()"),
    "logs it": (_FROM, "self.log.info('from %s', state_path); return self.fetch()"),
    "prints it": (_FROM, "print(f'from {state_path}'); return self.fetch()"),
    "throws it away": (_FROM, "_ = state_path; return self.fetch()"),
    "deletes it": (_FROM, "del state_path; return self.fetch()"),
    "keyword only": ("build_defs_from_state(self, context, *, state_path=None)", "return 1"),
    "replaces build_defs": ("build_defs(self, context)", "return self.fetch()"),
}


def _made(method: tuple[str, str], folder: Path, decorator: str = "") -> Any:
    signature, body = method
    file = folder / "made.py"
    file.write_text(f"{_HEAD}class Made(Base):\n    {decorator}\n    def {signature}: {body}\n")
    spec = importlib.util.spec_from_file_location("made", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Made()


@pytest.mark.parametrize("decorator", ["", "@wrapped"])
@pytest.mark.parametrize("method", READS.values(), ids=READS)
def test_what_may_read_its_state_is_left_alone(
    method: tuple[str, str], decorator: str, tmp_path: Path
) -> None:
    assert unread(_made(method, tmp_path, decorator)) == ""


@pytest.mark.parametrize("decorator", ["", "@wrapped"])
@pytest.mark.parametrize("method", IGNORES.values(), ids=IGNORES)
def test_what_never_reads_its_state_is_named(
    method: tuple[str, str], decorator: str, tmp_path: Path
) -> None:
    assert "of made.Made does not " in unread(_made(method, tmp_path, decorator))


def test_what_is_installed_or_has_no_source_is_left_alone(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    assert unread(_made(IGNORES["does not mention it"], installed)) == ""
    namespace: dict[str, Any] = {}
    text = "class Made:\n    def build_defs_from_state(self, a, b): return 1\n"
    exec(text, namespace)  # a class without a source
    assert unread(namespace["Made"]()) == ""
    assert unread(functools.partial(print)) == ""
