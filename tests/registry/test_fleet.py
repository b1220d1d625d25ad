"""Many images in one registry: what they have in common is asked, sent and logged in for once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.artifacts.image.registry.credentials import Logins
from bundler.artifacts.image.registry.tokens import Authorizer, Challenge
from bundler.artifacts.open import is_in_registry
from bundler.cli.outcome import show_updates
from bundler.errors import ToolFailed
from bundler.state.bundle import Bundle
from bundler.workflows.update import UpdateOutcome
from tests.support.layouts import LayoutMaker
from tests.support.pushing import (
    alone,  # noqa: F401  # a fixture for all
    basic,
    bundle,  # noqa: F401
    embed,
    login,
    maker,  # noqa: F401
    ours,  # noqa: F401
    push_base,
    state_bundler,
)
from tests.support.registries import Registry, free_port
from tests.support.workdir import WorkDir

COUNT = 12
PROJECT = """
[project]
name = "shop"
version = "1"
[[tool.state-bundler.source]]
key = "Catalog"
command = ["sh", "-c", "cp ../state {state_path} && echo >> ../fetched"]
path = "src/shop/defs/.local_defs_state"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkDir:
    wd = WorkDir.make(tmp_path / "project")
    wd.write("pyproject.toml", PROJECT)
    wd.write("src/shop/__init__.py", "")
    wd.write("src/shop/defs/__init__.py", "")
    wd.write(".gitignore", ".local_defs_state/\n")
    wd("git add .")
    wd.commit("project")
    (tmp_path / "state").write_text('{"products": 3}')
    monkeypatch.chdir(wd.path)
    return wd


@pytest.fixture(params=["repositories", "tags"])
def names(request: pytest.FixtureRequest, ours: Registry, maker: LayoutMaker) -> list[str]:  # noqa: F811
    """Images in a repository each, or all in one."""
    several = request.param == "repositories"
    found = [
        f"{ours.host}/shop{number}:1" if several else f"{ours.host}/shop:{number}"
        for number in range(COUNT)
    ]
    for name in found:
        push_base(maker, name)
    return found


def artifacts(names: list[str]) -> list[str]:
    return [f"docker://{name}" for name in names]


def repositories(names: list[str]) -> int:
    return len({name.rpartition(":")[0] for name in names})


@pytest.mark.parametrize("command", ["verify", "status"])
@pytest.mark.parametrize("token", [None, False, True])
def test_each_image_costs_its_own_three_requests(
    ours: Registry,  # noqa: F811
    names: list[str],
    bundle: Bundle,  # noqa: F811
    command: str,
    token: bool | None,
) -> None:
    for name in names:
        embed(name, bundle)
    if token is not None:
        ours.user, ours.token = ("me", "word"), token
        login(Path(os.environ["DOCKER_CONFIG"], "config.json"), ours.host, auth=basic("me", "word"))
    ours.log.clear()
    before = ours.lines
    state_bundler(command, *artifacts(names))

    assert len(ours.requests("/v2/$")) == 1
    assert len(ours.requests("/token")) == (repositories(names) if token else 0)
    asked = ours.requests("/manifests/|/blobs/")
    # Of those that are refused at first, there may be one in each of eight threads.
    assert 3 * COUNT <= len(asked) <= 3 * COUNT + (0 if token is None else COUNT)
    assert ours.lines - before <= 8 + 1


def test_an_update_refreshes_once_and_sends_the_state_once(
    ours: Registry,  # noqa: F811
    names: list[str],
    project: WorkDir,
) -> None:
    before, sent = set(ours.blobs), len(ours.requests("PUT .*/blobs/"))
    printed = json.loads(state_bundler("update", *artifacts(names), "--format", "json"))

    assert (project.path.parent / "fetched").read_text() == "\n"
    assert [item["changed"] for item in printed["artifacts"]] == [True] * COUNT
    new = {digest for _, digest in set(ours.blobs) - before}
    assert len(new) <= 1 + COUNT  # the state's layer, and the configurations
    assert len(ours.requests("PUT .*/blobs/")) - sent == 1 + COUNT
    assert len(ours.requests("POST .*mount=")) == (repositories(names) - 1)
    made = [item["image"] for item in printed["artifacts"]]
    state_bundler("verify", *artifacts(made))
    assert "unchanged" in state_bundler("update", *artifacts(names))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_updated_before_an_interruption_is_shown(
    ours: Registry,  # noqa: F811
    maker: LayoutMaker,  # noqa: F811
    project: WorkDir,
    number: signal.Signals,
) -> None:
    names = [f"{ours.host}/{name}:1" for name in ("mine", "yours", "theirs")]
    for name in names:
        push_base(maker, name)
    outputs = project.path.parent / "outputs"
    program = Path(sys.executable).with_name("state-bundler")
    # Tests that were started in the background inherit an ignored SIGINT.
    argv = ["env", "--default-signal=INT", program, "update", *artifacts(names)]
    with subprocess.Popen(
        [*argv, "--in-place", "--format", "json"],
        env={**os.environ, "GITHUB_OUTPUT": str(outputs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def stop(_: int, __: str, path: str) -> None:
            if path.startswith("/v2/yours/manifests/"):
                process.send_signal(number)

        ours.fault = stop
        printed, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert f"Stopped by signal {int(number)} ({number.name}); 1 of 3 artifacts updated." in said
    (made,) = json.loads(printed)["artifacts"]
    assert (made["image"], made["changed"]) == (names[0], True)
    assert f'images=["{names[0]}"]' in outputs.read_text()


def test_a_bug_hides_no_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    def updates() -> Iterator[UpdateOutcome]:
        yield UpdateOutcome("first", None, ToolFailed("It failed."))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        show_updates(updates(), 2, "json")
    shown = capsys.readouterr()
    assert json.loads(shown.out)["artifacts"][0]["artifact"] == "first"
    assert "It failed." in shown.err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker://acme/shop:1", True),
        ("ghcr.io/acme/shop:1", True),
        ("acme/shop:1", False),
        ("docker-daemon:ghcr.io/acme/shop:1", False),
        ("oci:build/shop:1", False),
        ("store:", False),
        ("missing.pex", False),
        ("docker://", False),
    ],
)
def test_only_images_in_registries_are_read_concurrently(name: str, expected: bool) -> None:
    assert is_in_registry(name) == expected


@pytest.mark.parametrize("refusal", [400, 401, 403, 404, 405])
def test_a_refused_mount_sends_the_state_instead(
    ours: Registry,  # noqa: F811
    maker: LayoutMaker,  # noqa: F811
    project: WorkDir,
    refusal: int,
) -> None:
    """A login for one repository may not be able to read the other."""
    names = [f"{ours.host}/{name}:1" for name in ("mine", "yours", "theirs")]
    for name in names:
        push_base(maker, name)
    ours.fault = lambda _, __, path: refusal if "mount=" in path else None
    sent = len(ours.requests("PUT .*/blobs/"))
    printed = json.loads(state_bundler("update", *artifacts(names), "--format", "json"))
    assert [item["changed"] for item in printed["artifacts"]] == [True] * 3
    assert len(ours.requests("POST .*mount=")) == 2  # one for each image, not for each pair
    assert len(ours.requests("PUT .*/blobs/")) - sent == 2 * 3
    assert project.path.is_dir()


@pytest.mark.parametrize("command", ["verify", "status"])
def test_a_registry_that_is_down_hides_no_other_artifact(
    ours: Registry,  # noqa: F811
    maker: LayoutMaker,  # noqa: F811
    bundle: Bundle,  # noqa: F811
    command: str,
) -> None:
    """A name without a prefix is looked up in the engine first, whose answer is shown, too."""
    intact, missing = f"{ours.host}/shop:1", f"localhost:{free_port()}/x:1"
    push_base(maker, intact)
    embed(intact, bundle)
    said = state_bundler(command, f"docker://{intact}", missing, code=71)
    assert intact in said
    assert "refused the connection" in said


def test_one_that_fails_does_not_keep_the_others_from_their_state(
    ours: Registry,  # noqa: F811
    maker: LayoutMaker,  # noqa: F811
    project: WorkDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"{ours.host}/shop:{tag}" for tag in ("1", "2")]
    for name in names:
        push_base(maker, name)
    given = artifacts([names[0], f"{ours.host}/shop:none", names[1]])
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    said = state_bundler("update", *given, "--in-place", code=2)

    assert f"has no image {ours.host}/shop:none" in said
    state_bundler("verify", *artifacts(names))
    (changed, images) = outputs.read_text().splitlines()[:2]
    assert changed == "changed=true"
    assert json.loads(images.removeprefix("images=")) == names
    project.write(
        "pyproject.toml", PROJECT + '[tool.state-bundler.keys."*"]\nmax-removed = "20%"\n'
    )
    assert "--baseline" in state_bundler("update", *artifacts(names), code=2)
    assert "exactly one ARTIFACT" in state_bundler("update", *given, "--tag", "x", code=2)
    assert "--baseline" not in state_bundler("update", given[0], given[0], "--tag", "x")


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper that takes its time: gives what ``secret`` has, lists in ``asked``."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh\ncat >/dev/null; echo x >> {tmp_path}/asked; sleep 0.2
test -s {tmp_path}/secret || exit 1
printf '{{"Username": "me", "Secret": "%s"}}' "$(cat {tmp_path}/secret)"
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"credsStore": "test"}')
    (tmp_path / "secret").write_text("word")
    return tmp_path


@pytest.fixture
def fleet(ours: Registry, maker: LayoutMaker, bundle: Bundle) -> list[str]:  # noqa: F811
    """Images with state, in a repository each, of a registry that requires a login."""
    names = [f"{ours.host}/shop{number}:1" for number in range(COUNT)]
    for name in names:
        push_base(maker, name)
        embed(name, bundle)
    ours.user = ("me", "word")
    return artifacts(names)


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("secret", ["word", ""])
def test_a_helper_is_asked_once_for_a_registry(
    ours: Registry,  # noqa: F811
    helper: Path,
    fleet: list[str],
    token: bool,
    secret: str,
) -> None:
    """Also if it fails: it may take a minute for that."""
    ours.token = token
    (helper / "secret").write_text(secret)
    state_bundler("verify", *fleet, "--require", "Dbt", code=0 if secret else 71)
    assert (helper / "asked").read_text() == "x\n"


@pytest.mark.parametrize("token", [False, True])
def test_credentials_that_expire_are_asked_for_again(
    ours: Registry,  # noqa: F811
    helper: Path,
    fleet: list[str],
    token: bool,
) -> None:
    """Once, for all threads that are refused."""

    def expire(_: int, __: str, path: str) -> None:
        if "/shop9/manifests/" in path and ours.user == ("me", "word"):
            (helper / "secret").write_text("later")
            ours.user = ("me", "later")

    ours.token, ours.fault = token, expire
    state_bundler("verify", *fleet)
    assert ours.user == ("me", "later")
    assert (helper / "asked").read_text() == "x\n" * 2


def test_credentials_that_stay_refused_end_the_command(
    ours: Registry,  # noqa: F811
    helper: Path,
    fleet: list[str],
) -> None:
    (helper / "secret").write_text("wrong")
    ours.log.clear()
    assert "rejects the credentials" in state_bundler("verify", fleet[0], code=77)
    assert (helper / "asked").read_text() == "x\n" * 2
    assert len(ours.requests("shop0/manifests")) == 2


def test_each_repository_has_its_own_login(
    ours: Registry,  # noqa: F811
    maker: LayoutMaker,  # noqa: F811
    bundle: Bundle,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """podman logs in to repositories; a connection that two share does not mix them up."""
    names = [f"{ours.host}/{name}/shop:1" for name in ("mine", "theirs")]
    for name in names:
        push_base(maker, name)
        embed(name, bundle)
    ours.user, ours.token = ("me", "word"), True
    login(tmp_path / "auth.json", f"{ours.host}/mine", auth=basic("me", "word"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    for order in (names, names[::-1]):
        said = state_bundler("verify", *artifacts(order), code=77)
        assert f"docker://{names[0]}" in said
        registry = f"The registry {ours.host} requires credentials."
        assert f"docker://{names[1]}: {registry}" in " ".join(said.split())


def test_threads_that_are_refused_together_get_one_token() -> None:
    asked: list[str] = []
    scope = ("repository:shop:pull",)

    def send(_: str, address: str, *__: object) -> tuple[int, bytes]:
        asked.append(address)
        return 200, b'{"token": "t%d"}' % len(asked)

    authorizer = Authorizer("registry.test", Logins("registry.test"), send)
    challenge = Challenge('Bearer realm="https://token.test/",service="x"', scope)
    threads = [threading.Thread(target=authorizer.answer, args=(challenge,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    authorizer.answer(Challenge(challenge.text, scope, "Bearer t1"))
    assert authorizer.header(scope) == "Bearer t2"
