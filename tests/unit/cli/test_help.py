"""Help: options in groups, the rare ones on demand, and named as they must be typed."""

from __future__ import annotations

import importlib
import io
import pkgutil
import subprocess
from pathlib import Path

import pytest

import bundler.cli
from bundler.cli.console import Console
from bundler.cli.help import Renamed, message_as_typed
from bundler.cli.options import Options, _declared, _Option
from bundler.cli.progress import ConsoleListener
from tests.support import forked


def _said(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forked.said(*words, cwd=cwd)


@pytest.mark.parametrize("kind", ["docker", "bake", "pex", "oci", "wheel"])
def test_rare_options_are_shown_on_demand(kind: str) -> None:
    short = _said("state-bundler", "build", kind, "-h").stdout
    whole = _said("state-bundler", "build", kind, "--help-all").stdout
    assert "What to refresh:" in short
    assert "--attempts" not in short
    assert "--attempts" in whole


@pytest.mark.parametrize("command", ["build", "bake"])
def test_docker_bundle_shows_what_must_be_typed_there(command: str) -> None:
    shown = _said("docker-bundle", "bundle", command, "--help").stdout
    assert f"Usage: docker bundle {command} " in shown
    assert "--bundle-refresh" in shown
    assert " --refresh" not in shown
    assert "All other options are passed on: see `docker build" in shown
    assert "`plan --out`" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("stauts",), "status"),
        (("build", "dokcer", "."), "docker"),
        (("store", "rolback"), "rollback"),
        (("status", "--basline", "x"), "--baseline"),
        (("build", "docker", "--refrsh", "never", "."), "--refresh"),
    ],
)
def test_what_is_unknown_gets_a_suggestion(words: tuple[str, ...], near: str) -> None:
    done = _said("state-bundler", *words)
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert near in done.stderr


def test_the_version() -> None:
    assert _said("state-bundler", "-V").stdout == _said("state-bundler", "--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script(shell: str) -> None:
    assert "_STATE_BUNDLER_COMPLETE" in _said("state-bundler", "completion", shell).stdout


_UNKNOWN = "Unknown option --bundle-refrsh."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("docker-bundle", "bundle", "build", "--bundle-refrsh", "never", "."), _UNKNOWN),
        (("docker-bundle", "bundle", "bake", "--bundle-refrsh", "never"), _UNKNOWN),
        (("pex-bundle", "--bundle-refrsh", "never", "-o", "app.pex"), _UNKNOWN),
        (("docker-bundle", "bundle", "build", "--bundle-refresh", "no", "."), "--bundle-refresh"),
        (("pex-bundle", "--bundle-refresh", "no", "-o", "app.pex"), "--bundle-refresh"),
    ],
)
def test_a_wrapper_names_our_options_as_they_are_typed_there(
    words: tuple[str, ...], says: str
) -> None:
    done = _said(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert says != _UNKNOWN or "Did you mean --bundle-refresh?" in done.stderr
    assert " --refresh" not in done.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Increase --total-timeout, or wait.", "Increase --bundle-total-timeout, or wait."),
        (
            "Use `docker build --pull` or --no-guard.",
            "Use `docker build --pull` or --bundle-no-guard.",
        ),
        ("git rm -r --cached -- state", "git rm -r --cached -- state"),
        ("Run: state-bundler refresh --key 'x'", "Run: state-bundler refresh --key 'x'"),
        ("Give each --output a name.", "Give each --output a name."),  # theirs
    ],
)
def test_messages_in_a_wrapper(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renamed, "option", "--bundle-")
    monkeypatch.setattr(Renamed, "ours", {"--total-timeout", "--no-guard", "--key"})
    assert message_as_typed(text) == shown
    reported = io.StringIO()
    listener = ConsoleListener(Console(reported))
    listener.note(text)
    listener.warning(text)
    assert reported.getvalue() == f"  {shown}\nwarning: {shown}\n"


def test_a_hint_in_docker_names_an_option_of_docker_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    outputs = ("-o", "type=oci,dest=a,compression=zstd", "-o", "type=oci,dest=b")
    said = _said("docker-bundle", "bundle", "build", *outputs, ".", cwd=tmp_path).stderr
    assert "Give each --output the same options" in said


def test_only_what_wraps_docker_renames_options() -> None:
    """`docker bundle refresh` has no arguments of docker's, and our options have their names."""
    shown = _said("docker-bundle", "bundle", "refresh", "--help").stdout
    assert "--key" in shown
    assert "--bundle-" not in shown


def test_no_option_of_a_command_is_passed_over() -> None:
    """`takes` knows an option by its annotation, and a group by a class that its module has."""
    for module in pkgutil.iter_modules(bundler.cli.__path__, "bundler.cli."):
        importlib.import_module(module.name)
    groups = [Options]
    for group in groups:
        groups += group.__subclasses__()
        given = {name for name, it in vars(group).items() if isinstance(it, _Option)}
        assert given | {*group.__annotations__} <= {*_declared(group)}, group
    assert len(groups) > 20
