"""Building with the real pex. About 30 s."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python.credentials import NOTHING, AllowedFiles
from bundler.artifacts.python.pex.arguments import parse
from bundler.artifacts.python.pex.building import building, find_pex
from bundler.artifacts.verify import read_back
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.errors import (
    ChildFailed,
    ConfigurationError,
    Locked,
    ToolFailed,
    UsageError,
    VerificationFailed,
)
from bundler.listener import Listener
from tests.support.pex_projects import (
    PEX,
    PLACE,
    RECORD,
    bundle_of,
    output_of,
    package,
    run_pex,
    set_state,
)
from tests.support.recording import RecordingListener


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("PEX_ROOT", raising=False)


def build(
    *arguments: str,
    bundles: list[Path],
    listener: Listener | None = None,
    allowed: AllowedFiles = NOTHING,
) -> Path:
    made = [bundle_of(path) for path in bundles]
    request = EmbedRequest(tuple(made), RECORD, listener=listener or RecordingListener())
    with building(str(PEX), parse(arguments), request, allowed) as (artifact, path):
        read_back(artifact, made)
        assert not path.exists()
    return path


@pytest.mark.parametrize("how", [["-D", "src"], ["-P", "shop@src"]], ids=lambda how: how[0])
def test_only_our_verified_bytes_are_in(
    how: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="on disk", Leftover="x")
    (tmp_path / "src" / PLACE / "@staging").mkdir()
    (tmp_path / "src" / PLACE / "@staging" / "lock").touch()
    state = set_state(tmp_path / "s", A="verified")
    app = build(*how, "-m", "shop", "--venv", "-o", "dist/app.pex", bundles=[state])
    assert app == tmp_path / "dist" / "app.pex"
    assert list(app.parent.iterdir()) == [app]
    assert output_of(app, tmp_path / "root") == "A=verified"


def test_for_another_platform_and_without_state_the_file_is_pex_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = package(tmp_path / "src")
    shutil.rmtree(source / PLACE)
    inspect = [PEX.with_name("pex3"), "interpreter", "inspect", "--markers", "--tags"]
    here = json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)
    here["marker_environment"]["platform_machine"] = "riscv64"
    (tmp_path / "other.json").write_text(json.dumps(here))
    arguments = ["-D", "src", "-m", "shop", "--sh-boot", "--complete-platform", "other.json"]
    run_pex(*arguments, "-o", "theirs.pex", cwd=tmp_path, root=tmp_path / "root")
    ours = build(*arguments, "-o", "ours.pex", bundles=[])
    assert ours.read_bytes() == (tmp_path / "theirs.pex").read_bytes()
    assert ours.stat().st_mode == (tmp_path / "theirs.pex").stat().st_mode


def test_state_of_a_project_that_was_not_named_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="unknown")
    with pytest.raises(VerificationFailed, match=PLACE):
        build("-D", "src", "-o", "app.pex", bundles=[])
    assert not (tmp_path / "app.pex").exists()


@pytest.mark.parametrize("where", [".env", "shop/.env.production", "shop/id_rsa", ".aws/config"])
def test_credentials_are_refused_by_name(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="x")
    (tmp_path / "src" / where).parent.mkdir(exist_ok=True)
    (tmp_path / "src" / where).write_text("TOKEN=x")
    state = set_state(tmp_path / "s", A="verified")
    for bundles in ([], [state]):
        if not bundles:
            shutil.rmtree(tmp_path / "src" / PLACE)
        named = where if "aws" not in where else ".aws"
        with pytest.raises(ConfigurationError, match=f"would contain credentials: {named}."):
            build("-D", "src", "-m", "shop", "-o", "app.pex", bundles=bundles)
    assert not (tmp_path / "app.pex").exists()


def test_a_private_key_of_the_package_is_refused_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="x")
    (tmp_path / "src" / "shop" / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "src" / "shop" / "test.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    state = set_state(tmp_path / "s", A="verified")
    words = ["-D", "src", "-m", "shop", "--venv", "-o", "app.pex"]
    with pytest.raises(ConfigurationError, match=r"contain credentials: shop/test\.key\.") as it:
        build(*words, bundles=[state])
    assert 'allow-credential-files = ["shop/test.key"]' in it.value.hint
    listener = RecordingListener()
    (tmp_path / "src/old.pex").write_text("x")
    allowed = AllowedFiles(["shop/*.key"])
    build(*words, bundles=[state], listener=listener, allowed=allowed)
    (warning,) = listener.warnings
    assert warning.startswith("app.pex contains shop/test.key, which allow-credential-files allow")
    assert "app.pex contains older artifacts or files that git ignores: old.pex." in listener.notes


@pytest.mark.parametrize("words", ["-o app.pex -- -D src", "-D src -o app.pex"])
def test_what_a_folder_holds_is_refused_before_anything_is_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_BUNDLER_PYTHON", sys.executable)
    source = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["touch", "ran"]\npath = "s/t"\n'
    (tmp_path / "pyproject.toml").write_text(source)
    (tmp_path / "src/conf").mkdir(parents=True)
    (tmp_path / "src/conf/.env").write_text("TOKEN=x")
    assert run(cli, ["build", "pex", "--no-guard", *words.split()]) == 78
    said = capsys.readouterr().err
    assert "The PEX would contain credentials: src/conf/.env." in said
    assert 'allow-credential-files = ["conf/.env"]' in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", ["-D src", "-o a.pex -- -D src -o b.pex"])
def test_a_build_makes_one_pex(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["build", "pex", *words.split()]) == 2
    assert "needs the path of one PEX" in capsys.readouterr().err


def test_a_failed_build_passes_its_exit_code_on_and_keeps_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.pex").write_text("older")
    with pytest.raises(ChildFailed) as caught:
        build("--no-such-option", "-o", "app.pex", bundles=[])
    assert caught.value.exit_code == 2
    assert (tmp_path / "app.pex").read_text() == "older"
    assert os.listdir(tmp_path) == ["app.pex"]


@pytest.mark.parametrize(
    ("option", "touched", "raised"),
    [
        ("-D", "src/@staging/run", Locked),
        ("-D", "src/other", ChildFailed),
        ("-r", "src/@staging/run", ChildFailed),  # pex does not read there
    ],
)
def test_a_refresh_that_disturbs_pex_is_said(
    option: str, touched: str, raised: type[Exception], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    made = bundle_of(set_state(tmp_path / "src", A="1"))
    (tmp_path / "src/@staging").mkdir(exist_ok=True)
    os.utime("src/@staging", (1, 1))
    pex = tmp_path / "pex"
    pex.write_text(f"#!/bin/sh\nmkdir -p {touched}\nexit 3\n")
    pex.chmod(0o755)
    arguments = parse([option, "src", "-o", "app.pex"])
    with (
        pytest.raises(raised, match="pex failed"),
        building(str(pex), arguments, EmbedRequest((made,), RECORD)),
    ):
        pass
    assert not (tmp_path / "app.pex").exists()


def test_a_failed_verification_keeps_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="1")
    (tmp_path / "app.pex").write_text("older")
    made = [bundle_of(set_state(tmp_path / "s", A="1"))]
    arguments = parse(["-D", "src", "-o", "app.pex"])
    request = EmbedRequest(tuple(made), RECORD)
    with (
        pytest.raises(VerificationFailed) as raised,
        building(str(PEX), arguments, request) as (artifact, _),
    ):
        raise VerificationFailed(f"{artifact.name} is wrong.")
    assert raised.value.what == f"{tmp_path}/app.pex is wrong."
    assert (tmp_path / "app.pex").read_text() == "older"


def test_the_users_own_pex_root_is_honoured_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="1")
    listener = RecordingListener()
    state = set_state(tmp_path / "s", A="1")
    build("-D", "src", "--pex-root", "own", "-o", "app.pex", bundles=[state], listener=listener)
    assert any("own is used as pex's cache" in warning for warning in listener.warnings)
    assert (tmp_path / "own").is_dir()


def test_a_file_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    package(tmp_path / "src", A="1")
    (tmp_path / "args").write_text("-D\nsrc\n-m\nshop\n-o\nfrom-{platform}.pex\n")
    arguments = parse(["@args", "--venv", "--", "-o", "for the program"])
    assert arguments.output == "from-{platform}.pex"
    assert arguments.rest == ("-D", "src", "-m", "shop", "--venv")
    assert arguments.program == ("-o", "for the program")


@pytest.mark.parametrize(
    "argument", ["-oapp.pex", "--output-file=app.pex", "--output=app.pex", "-o=app.pex"]
)
def test_every_way_to_say_where_it_goes(argument: str) -> None:
    assert parse(["x", argument, "y"]).output == "app.pex"
    assert parse(["x", argument, "y"]).rest == ("x", "y")


@pytest.mark.parametrize("argument", ["-voapp.pex", "-vvo=app.pex", "-vo app.pex", "@args"])
def test_it_may_follow_a_switch_in_the_same_word(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("args").write_bytes(b"-vo\napp.pex\n-D\n\xff")
    found = parse(["x", *argument.split(), "-vDsrc"])
    assert found.output == "app.pex"
    assert found.rest[1].strip("v") == "-"
    assert found.rest[-2:] == ("-v", "-Dsrc")


@pytest.mark.parametrize(
    "argument", ["--scie", "--seed=verbose", "--scie=eager", "--rc", "--pexrc"]
)
def test_what_would_use_the_file_without_its_state_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="without its state"):
        parse([argument, "-o", "app.pex"])


def test_a_missing_pex_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolFailed, match="no-such-pex"):
        find_pex(None, "no-such-pex")
    assert find_pex(None) == str(PEX)
