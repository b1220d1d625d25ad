"""A repository that wants to run its own program: nothing of it runs. A marker for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundler import git
from tests.support.workdir import STATE, WorkDir

FILE = f"defs/{STATE}/K/state"
MOMENTS = (["--staged"], ["--staged", "--strict"], [], ["--history"], ["--push"])


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def trap(tmp_path: Path, marker: Path) -> Path:
    """A program that leaves a marker, whatever it is called with."""
    program = tmp_path / "trap"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {marker}\ncat\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write("code.txt")
    wd.write(".gitattributes", "*.txt filter=evil diff=evil merge=evil\n")
    wd.commit()
    wd.write(FILE)
    wd.write("code.txt", "changed\n")
    return wd


CONFIGURED = {
    "fsmonitor": "core.fsmonitor",
    "clean filter": "filter.evil.clean",
    "smudge filter": "filter.evil.smudge",
    "process filter": "filter.evil.process",
    "textconv": "diff.evil.textconv",
    "diff command": "diff.evil.command",
    "external diff": "diff.external",
    "merge driver": "merge.evil.driver",
    "pager": "core.pager",
    "pager of a command": "pager.ls-files",
    "editor": "core.editor",
    "askpass": "core.askPass",
    "ssh": "core.sshCommand",
    "gpg": "gpg.program",
    "credential helper": "credential.helper",
    "proxy": "core.gitProxy",
    "alternate refs": "core.alternateRefsCommand",
}


@pytest.mark.parametrize("name", ["fsmonitor", "clean filter", "process filter"])
def test_the_traps_are_real(repository: WorkDir, trap: Path, marker: Path, name: str) -> None:
    """What an ordinary git command runs, so that the tests below mean something."""
    repository(["git", "config", CONFIGURED[name], str(trap)])
    repository.run("git add -A")
    assert marker.exists()


def ask_everything(wd: WorkDir, env: dict[str, str] | None = None) -> None:
    for moment in MOMENTS:
        assert wd.guard(*moment, env=env).code in (0, 1)


@pytest.mark.parametrize("name", CONFIGURED)
def test_configured_programs(repository: WorkDir, trap: Path, marker: Path, name: str) -> None:
    repository(["git", "config", CONFIGURED[name], str(trap)])
    repository(["git", "config", "filter.evil.required", "true"])
    ask_everything(repository)
    assert not marker.exists(), marker.read_text()


@pytest.mark.parametrize(
    "command", ["ls-files", "check-ignore", "rev-parse", "diff-index", "rev-list", "cat-file"]
)
def test_aliases(repository: WorkDir, trap: Path, marker: Path, command: str) -> None:
    repository(["git", "config", f"alias.{command}", f"!{trap}"])
    ask_everything(repository)
    assert not marker.exists()


def test_hooks(repository: WorkDir, trap: Path, marker: Path) -> None:
    hooks = repository.path / "hooks"
    hooks.mkdir()
    for name in (
        "post-index-change",
        "post-checkout",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        (hooks / name).symlink_to(trap)
    repository(["git", "config", "core.hooksPath", str(hooks)])
    ask_everything(repository)
    assert not marker.exists()


VARIABLES: dict[str, Callable[[Path, Path], str]] = {
    "GIT_EXTERNAL_DIFF": lambda trap, _: str(trap),
    "GIT_PAGER": lambda trap, _: str(trap),
    "GIT_EDITOR": lambda trap, _: str(trap),
    "GIT_SSH_COMMAND": lambda trap, _: str(trap),
    "GIT_ASKPASS": lambda trap, _: str(trap),
    "GIT_PROXY_COMMAND": lambda trap, _: str(trap),
    "GIT_TRACE": lambda _, marker: str(marker),
    "GIT_TRACE2": lambda _, marker: str(marker),
    "GIT_TRACE2_EVENT": lambda _, marker: str(marker),
    "GIT_TRACE_SETUP": lambda _, marker: str(marker),
    "GIT_TRACE_PACKET": lambda _, marker: str(marker),
    "GIT_EXEC_PATH": lambda trap, _: str(trap.parent),
    "GIT_LITERAL_PATHSPECS": lambda *_: "1",
    "GIT_GLOB_PATHSPECS": lambda *_: "1",
    "GIT_NOGLOB_PATHSPECS": lambda *_: "1",
    "GIT_ICASE_PATHSPECS": lambda *_: "1",
    "GIT_NAMESPACE": lambda *_: "evil",
    "GIT_REPLACE_REF_BASE": lambda *_: "refs/heads",
    "GIT_FLUSH": lambda *_: "nonsense",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(repository: WorkDir, trap: Path, marker: Path, name: str) -> None:
    env = {name: VARIABLES[name](trap, marker)}
    repository("git add -f -A")
    repository("git commit -q -m leak")
    for moment in MOMENTS:
        assert repository.guard(*moment, env=env).code == 1
    assert not marker.exists(), marker.read_text()


def test_configuration_by_environment(repository: WorkDir, trap: Path, marker: Path) -> None:
    env = {"GIT_CONFIG_PARAMETERS": f"'core.fsmonitor={trap}'"}
    ask_everything(repository, env)
    env = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(trap),
    }
    ask_everything(repository, env)
    assert not marker.exists()


def test_a_git_of_the_repository_s_own(repository: WorkDir, trap: Path, marker: Path) -> None:
    (repository.path / "git").symlink_to(trap)
    for path in (f".:{repository.env['PATH']}", f":{repository.env['PATH']}"):
        ask_everything(repository, {"PATH": path})
    assert not marker.exists()


def test_lazy_fetch_of_a_partial_clone(repository: WorkDir, trap: Path, marker: Path) -> None:
    """A promisor remote whose address is a command."""
    repository("git config extensions.partialClone evil")
    repository("git config remote.evil.promisor true")
    repository(["git", "config", "remote.evil.url", f"ext::{trap}"])
    repository("git config protocol.ext.allow always")
    commit = repository("git rev-parse HEAD")
    tree = repository("git rev-parse HEAD^{tree}")
    (repository.path / ".git/objects" / tree[:2] / tree[2:]).unlink()
    assert repository.guard("--history").code == 71
    repository.write(".git/refs/heads/odd", commit.replace("a", "b") + "\n")
    repository.guard()
    assert not marker.exists()


def test_nothing_is_written(repository: WorkDir) -> None:
    """Not even the index, which git likes to refresh."""
    before = snapshot(repository.path)
    ask_everything(repository)
    assert snapshot(repository.path) == before


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): (status.st_mtime_ns, status.st_size, status.st_ino)
        for path in sorted(root.rglob("*"))
        for status in (path.lstat(),)
    }


def test_the_identity_of_the_code_runs_no_filter(
    repository: WorkDir, trap: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in repository.env.items():
        monkeypatch.setenv(name, value)
    for name in ("clean", "process"):
        repository(["git", "config", f"filter.evil.{name}", str(trap)])
    repository(["git", "config", "filter.evil.required", "true"])
    repository(["git", "config", "filter.a=b.c.clean", str(trap)])
    repository(["git", "config", "core.fsmonitor", str(trap)])
    code = git.code_identity(repository.path)
    assert code is not None
    assert code.dirty
    assert not marker.exists(), marker.read_text()
