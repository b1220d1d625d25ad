"""`.pre-commit-config.yaml` in many styles: one item more and nothing else, or a refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bundler.errors import ConfigurationError
from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext
from bundler.setup.doctor.commits import commits
from bundler.setup.init import plan, precommit
from tests.support import forked

HOOK = "no-committed-state"
ITEM = '{"repo": "https://example.com/x", "rev": "v1", "hooks": [{"id": "x"}]}'
BLOCK = "repos:\n- repo: https://example.com/x\n  rev: v1\n  hooks:\n  - id: x\n"

STYLES = {
    "a block": BLOCK,
    "no final newline": BLOCK.rstrip("\n"),
    "indented": "repos:\n  - repo: local\n    hooks: []\n",
    "deeply indented": "repos:\n    -   repo: local\n        hooks: []\n",
    "a dash on its own line": "repos:\n  -\n    repo: local\n    hooks: []\n",
    "an empty list": "repos: []\n",
    "an empty list, a comment": "repos: []  # none yet\nfail_fast: true\n",
    "null": "repos:\n",
    "null, and more": "repos: # soon\nfail_fast: true\n",
    "null with an anchor": "repos: &all\nci: {}\n",
    "a tilde": "repos: ~\nci: {}\n",
    "no repos": "fail_fast: true\n",
    "no repos, no final newline": "fail_fast: true",
    "a quoted key": BLOCK.replace("repos", '"repos"'),
    "a key in single quotes": BLOCK.replace("repos", "'repos'"),
    "a long key": BLOCK.replace("repos:", "? repos\n:"),
    "a document's start": "---\n" + BLOCK,
    "a document's start and a comment": "# ours\n--- # here\n" + BLOCK,
    "a document's end": BLOCK + "...\n",
    "a directive": "%YAML 1.2\n---\n" + BLOCK,
    "comments": "# top\nrepos: # here\n  # one\n  - repo: local # two\n    hooks: [] # three\n"
    "# four\n\n# five\nfail_fast: true # six\n",
    "repos first": BLOCK + "\n\n# tail\nfail_fast: true\n",
    "an anchor on the list": BLOCK.replace("repos:", "repos: &all"),
    "anchors and aliases": "x: &rev v1\nrepos:\n- &one\n  repo: a\n  rev: *rev\n- *one\n",
    "an alias at the end": "x: &args [a]\nrepos:\n- repo: a\n  hooks:\n  - args: *args\n",
    "a merge": "base: &base {repo: local}\nrepos:\n- hooks: []\n  <<: *base\n",
    "a text at the end": "repos:\n- hooks:\n  - id: x\n    files: |\n      ^a$\n      ^b$\n",
    "a folded text, more below": "repos:\n- repo: a\n  x: >-\n    a\n    b\n\n\nci: {}\n",
    "a multi-line string": 'repos:\n- repo: a\n  hooks: []\n  x: "a\n    b"\nci: {}\n',
    "null at the end": "repos:\n- repo: a\n  hooks:\nci: {}\n",
    "unusual line breaks": BLOCK + 'x: "a\u2028b\x85c"\n',
    "a tab in a comment": BLOCK + "#\tx\n",
    "other letters": "repos:\n- repo: lökal # ünï 漢字 😀\n  hooks: []\n",
    "our hook in a comment": f"# not {HOOK} yet\n" + BLOCK,
    "our hook as another's text": BLOCK + f"ci: {{skip: [{HOOK}]}}\n",
    "empty": "",
    "blank": "\n\n",
    "comments alone": "# later\n",
    "a start alone": "---\n",
}  # fmt: skip


def read(text: str) -> dict[str, object]:
    """As pre-commit reads it."""
    data = yaml.safe_load(text)
    return data if isinstance(data, dict) else {}


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip().startswith("#")]


@pytest.mark.parametrize("mark", ["", pytest.param("\ufeff", marks=pytest.mark.slow)])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("style", STYLES)
def test_our_hook_comes_to_the_end_and_the_rest_stays(style: str, newline: str, mark: str) -> None:
    text = mark + STYLES[style].replace("\n", newline)
    before = read(text)
    added = precommit.add_entry(text)
    after = read(added)
    assert after["repos"][:-1] == (before.get("repos") or [])  # type: ignore[index]
    assert after["repos"][-1]["hooks"][0]["id"] == HOOK  # type: ignore[index]
    assert {**after, "repos": 0} == {**before, "repos": 0}
    assert added.startswith(mark)
    assert comments(added) == comments(text)
    if newline == "\r\n" and "\n" in text:
        assert added.count("\n") == added.count("\r\n")
    assert precommit.add_entry(added) == added


@pytest.mark.parametrize("style", STYLES)
def test_what_was_added_goes_again(style: str) -> None:
    text = STYLES[style]
    removed = precommit.remove_entry(precommit.add_entry(text))
    assert (read(removed or "").get("repos") or []) == (read(text).get("repos") or [])


@pytest.mark.parametrize("style", STYLES)
def test_lines_that_were_there_stay_as_they_are(style: str) -> None:
    """In a block the change is lines alone: the diff that `init` shows has no other."""
    text = STYLES[style]
    if "[" in text or "{" in text or "~" in text or not text.endswith("\n"):
        return
    added = precommit.add_entry(text).split("\n")
    assert [line for line in text.split("\n") if line not in added] == []


@given(
    st.lists(st.sampled_from(["a", "b: c", "# x", "é", "- d", "[", "{", "'"]), max_size=3),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from(["", " ", "  ", "\n", "\n# end\n"]),
)
def test_never_anything_else(names: list[str], style: str, end: str) -> None:
    """Whatever is in the file: the item comes to it, or it is refused."""
    repos = json.dumps([{"repo": name, "hooks": []} for name in names])
    text = STYLES[style] + f"{end}x: {repos}\n" + end
    try:
        added = precommit.add_entry(text)
    except ConfigurationError:
        return
    before, after = read(text), read(added)
    assert {**after, "repos": 0} == {**before, "repos": 0}
    assert after["repos"][:-1] == (before.get("repos") or [])  # type: ignore[index]


REFUSED = {
    "a list in brackets": (f"repos: [{ITEM}]\n", "only a list with each item on its own line"),
    "an empty list over lines": ("repos: [\n  # none\n]\n", "cannot be changed safely"),
    "JSON": (f'{{"repos": [{ITEM}]}}\n', "cannot be changed safely"),
    "JSON, no repos": ('{"fail_fast": true}', "cannot be changed safely"),
    "several documents": (BLOCK + "---\n" + BLOCK, "several YAML documents"),
    "an empty second document": (BLOCK + "---\n", "several YAML documents"),
    "the old format": ("- repo: local\n  hooks: []\n", "is a list"),
    "a text": ("hello\n", "is not a mapping"),
    "repos is a mapping": ("repos: {a: 1}\n", "a `repos` that is not a list"),
    "repos is a text": ("repos: none\n", "a `repos` that is not a list"),
    "a bracket that stays open": ("repos: [\n", "line 2"),
    "a tab": ("repos:\n\t- repo: a\n", "line 2"),
    "a key twice": (BLOCK + BLOCK, "duplicate key"),
    "an unknown alias": ("repos: *none\n", "alias"),
    "an unknown tag": ("repos: !x []\n", "tag"),
    "a list elsewhere": (f"all: &all [{ITEM}]\nrepos: *all\n", "cannot be changed safely"),
    "a control character": ("repos: []\nx: \x01\n", "cannot be read"),
}


def test_the_refusal_shows_what_to_add_by_hand() -> None:
    with pytest.raises(ConfigurationError) as caught:
        precommit.add_entry(f"repos: [{ITEM}]\n")
    (item,) = (line for line in caught.value.hint.splitlines() if line.startswith("{"))
    assert precommit.names_hook(f"repos: [{ITEM}, {item}]\n")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_changed_is_refused_with_a_reason(case: str, tmp_path: Path) -> None:
    text, reason = REFUSED[case]
    with pytest.raises(ConfigurationError, match=reason) as caught:
        precommit.add_entry(text)
    assert caught.value.hint
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "a"\n')
    (tmp_path / ".pre-commit-config.yaml").write_text(text)
    done = forked.said("state-bundler", "init", "--yes", "--project", tmp_path)
    assert done.returncode == 78
    assert ".pre-commit-config.yaml" in done.stderr
    assert not (tmp_path / ".gitignore").exists()
    assert (tmp_path / ".pre-commit-config.yaml").read_text() == text
    (finding,) = commits(DoctorContext(survey(tmp_path)))
    assert finding.grade == "warn"
    assert reason in finding.what or "does not list" in finding.what


@pytest.mark.slow
@pytest.mark.parametrize("style", ["an empty list", "a quoted key", "no repos"])
def test_pre_commit_takes_it(style: str, tmp_path: Path) -> None:
    """The framework itself, and `doctor`, which then has nothing more to ask for."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "a"\n')
    file = tmp_path / ".pre-commit-config.yaml"
    file.write_text(STYLES[style])
    (edit,) = (each for each in plan(survey(tmp_path)) if each.path == file)
    assert edit.after is not None
    file.write_text(edit.after)
    pre_commit = Path(sys.executable).with_name("pre-commit")
    subprocess.run([pre_commit, "validate-config", file], check=True, capture_output=True)
    (finding,) = commits(DoctorContext(survey(tmp_path)))
    assert "is not installed in this clone" in finding.what or finding.grade == "ok"
