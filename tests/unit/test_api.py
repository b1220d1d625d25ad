"""``import bundler``: what a program can call, its types, and that asking for it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import bundler
from bundler.errors import Findings, UsageError, VerificationFailed
from bundler.listener import Listener
from tests.support.environments import ROOT
from tests.support.workdir import WorkDir

_PROJECT = """\
[project]
name = "shop"
version = "1"

[[tool.state-bundler.source]]
key = "Catalogue"
command = ["{python}", "fetch.py", "{{state_path}}"]
path = "src/shop/state"
"""
_FETCH = 'import os, sys; open(sys.argv[1], "w").write(os.environ.get("ANSWER", "[1, 2, 3]"))\n'

# What a user would write, and what each of its values is.
_USER = """\
import bundler
from bundler import BundlerError, Listener, Policy, RefreshOptions
from bundler.state.artifact import Artifact
from typing_extensions import assert_type
from bundler.artifacts.diff import Difference, KeyDifference
from bundler.refresh.run import Refreshed
from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.verify import Verdict


class Loud(Listener):
    def warning(self, text: str) -> None:
        print(text)


def ship(project: str) -> int:
    try:
        verdict = bundler.guard(project, "history", strict=True)
        assert_type(verdict.failed, bool)
        refreshed = bundler.refresh(project, options=RefreshOptions(jobs=4), listener=Loud())
        assert_type(refreshed, Refreshed)
        updated = bundler.embed("app.pex", project, in_place=True)
        assert_type(updated, EmbedResult)
        assert_type(bundler.verify(updated.name, Policy(max_age=3600.0)), Verdict)
        assert_type(bundler.diff("a.pex", "b.pex"), Difference)
        return len(refreshed.changed)
    except BundlerError as error:
        print(error.what, error.hint)
        return error.exit_code
"""


@pytest.fixture
def project(wd: WorkDir) -> Path:
    wd.write("pyproject.toml", _PROJECT.format(python=sys.executable))
    wd.write("fetch.py", _FETCH)
    wd.write(".gitignore", "/src/shop/state\n")
    wd("git add .")
    wd.commit("first")
    return wd.path


def test_the_five_functions_are_one_way_from_source_to_proof(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not bundler.guard(project).failed
    refreshed = bundler.refresh(project)
    assert refreshed.changed == ("Catalogue",)

    image = f"oci:{tmp_path / 'layout'}:1"
    command = [sys.executable, "-m", "bundler", "build", "oci", "--refresh", "never", "-o", image]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    assert not bundler.embed(image, project).changed

    monkeypatch.setenv("ANSWER", "[1, 2, 3, 4]")
    updated = bundler.embed(image, project, options=bundler.RefreshOptions(mode="always"))
    assert updated.changed
    verdict = bundler.verify(updated.name, bundler.Policy(require=("Catalogue",), guarded=True))
    assert [bool(directory.manifest) for directory in verdict.directories] == [True]
    found = bundler.diff(image, updated.name)
    assert [(key.key, key.kind) for key in found.keys] == [("Catalogue", "changed")]


def test_what_violates_the_policy_is_raised(project: Path, wd: WorkDir) -> None:
    bundler.refresh(project)
    state = project / "src/shop/state"
    with pytest.raises(Findings, match="Other") as raised:
        bundler.verify(str(state), bundler.Policy(require=("Other",)))
    assert raised.value.hint  # the command's own error
    (state / "Catalogue/state").write_text("[]")
    with pytest.raises(VerificationFailed):
        bundler.verify(str(state))
    wd("git add --force src/shop/state")
    with pytest.raises(Findings):
        bundler.guard(project)


def test_a_listener_is_called_and_nothing_is_printed(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[str] = []

    class Loud(Listener):
        def phase(self, text: str) -> None:
            reported.append(text)

    bundler.refresh(project, listener=Loud())
    assert "Refreshing 1 key" in reported
    assert capfd.readouterr() == ("", "")


def test_importing_it_imports_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules); import json, bundler\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('bundler')]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert set(json.loads(done.stdout)) == {
        *("bundler", "bundler.api", "bundler.guard", "bundler.refresh", "bundler.version")
    }


def test_the_functions_stay_what_they_are_when_the_modules_are_loaded() -> None:
    import bundler.guard.moments
    import bundler.refresh.run

    for name in ("diff", "embed", "guard", "refresh", "verify"):
        assert callable(getattr(bundler, name)), name
        assert getattr(bundler, name).__doc__


def test_all_that_is_offered_is_there() -> None:
    assert all(getattr(bundler, name) for name in bundler.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bundler.nothing  # noqa: B018  # type: ignore[attr-defined]  # that is the question


@pytest.mark.slow
def test_mypy_knows_the_types_for_a_user(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(_USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ROOT / ".mypy_cache", "user.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_what_is_not_an_artifact_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        bundler.verify(str(tmp_path / "none.pex"))
    (tmp_path / "shop-1-py3-none-any.whl").touch()
    with pytest.raises(UsageError, match="is a wheel"):  # before it looks for the project
        bundler.embed(str(tmp_path / "shop-1-py3-none-any.whl"), tmp_path)
