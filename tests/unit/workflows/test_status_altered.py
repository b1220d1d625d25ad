"""``status`` and its page never show a state as good that does not match its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.cli.page import page
from bundler.refresh.model import Component, Found
from bundler.state.directory import DirectoryArtifact
from bundler.workflows.status import Holder, of_artifact, of_sources
from tests.support import forked
from tests.support.bundles import make_bundle

_STATES = {"Good": {"state": b"[1]"}, "Bad[x]": {"state": b"[1, 2]", "more/file": b"x"}}
_BAD = "Bad__x__"
_PROBLEM = "Bad[x] does not match its manifest."

ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "edited": lambda root: (root / _BAD / "state").write_bytes(b"[1, 3]"),
    "longer": lambda root: (root / _BAD / "state").write_bytes(b"[1, 2, 3]"),
    "removed": lambda root: (root / _BAD / "more/file").unlink(),
    "added": lambda root: (root / _BAD / "more/other").write_bytes(b""),
    "linked": lambda root: (root / _BAD / "link").symlink_to("state"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "states", _STATES)
    return tmp_path / "states"


def _of_project(root: Path) -> Holder:
    components = tuple(Component(key, "LOCAL_FILESYSTEM", "shop.Shop") for key in _STATES)
    return of_sources("shop", [Found(root, "shop/state", components)])


def _of_directory(root: Path) -> Holder:
    with DirectoryArtifact(root) as artifact:
        return of_artifact(artifact)


@pytest.mark.parametrize("look", [_of_project, _of_directory])
def test_what_matches_has_no_problem(look: Callable[[Path], Holder], root: Path) -> None:
    holder = look(root)
    assert holder.failure is None
    assert [key.problem for key in holder.keys] == ["", ""]


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
@pytest.mark.parametrize("look", [_of_project, _of_directory])
def test_an_altered_state_is_shown_as_such(
    look: Callable[[Path], Holder], alter: Callable[[Path], object], root: Path
) -> None:
    alter(root)
    holder = look(root)
    assert {key.key: key.problem for key in holder.keys} == {"Good": "", "Bad[x]": _PROBLEM}
    assert holder.failure is not None
    assert _BAD in holder.failure.what
    shown = page([holder], 0.0)
    assert _PROBLEM in shown


def test_the_command_fails_and_shows_every_key(root: Path) -> None:
    ALTERATIONS["edited"](root)
    done = forked.said("state-bundler", "status", str(root))
    assert done.returncode == 76
    assert "Good" in done.stdout
    assert _PROBLEM in done.stdout
    assert "was altered" in done.stderr
    done = forked.said("state-bundler", "status", str(root), "--format", "json")
    (found,) = json.loads(done.stdout)["artifacts"]
    assert {key["key"]: key["problem"] for key in found["keys"]} == {
        "Good": None,
        "Bad[x]": _PROBLEM,
    }
    assert (done.returncode, found["error"]["exitCode"]) == (76, 76)
