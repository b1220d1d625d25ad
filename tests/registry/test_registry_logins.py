"""Who we are to a registry: logins where people leave them, helpers, tokens, refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bundler.artifacts.image import registry
from bundler.artifacts.image.registry import credentials
from bundler.artifacts.reference import parse
from bundler.errors import ConfigurationError, CredentialsRefused, ToolFailed
from tests.support.layouts import LayoutMaker
from tests.support.pushing import alone, basic, login, push_base  # noqa: F401  # a fixture for all
from tests.support.registries import Registry


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("where", ["config", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE"])
def test_logins_are_found_where_they_are_left(
    ours: Registry, maker: LayoutMaker, monkeypatch: pytest.MonkeyPatch, token: bool, where: str
) -> None:
    tmp_path = maker.path.parent
    ours.user, ours.token = ("me", "s3cret:word"), token
    entry = {"auth": basic("me", "s3cret:word")}
    if where == "config":
        login(tmp_path / "docker" / "config.json", ours.host, **entry)
    elif where == "DOCKER_AUTH_CONFIG":
        monkeypatch.setenv(where, json.dumps({"auths": {f"http://{ours.host}/v1/": entry}}))
    else:
        login(tmp_path / "auth.json", f"{ours.host}/acme", **entry)
        monkeypatch.setenv(where, str(tmp_path / "auth.json"))
    push_base(maker, f"{ours.host}/acme/shop:1")

    assert ours.tag("acme/shop", "1") is not None
    assert all(h.get("Authorization", "").startswith("Basic") or token for h in ours.headers[3:])


def test_a_helper_is_asked(
    ours: Registry, maker: LayoutMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.user, ours.token = ("me", "word"), True
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(
        """#!/bin/sh\ntest -n "$(cat)" && echo '{"Username": "me", "Secret": "word"}'\n"""
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(
        json.dumps({"credHelpers": {ours.host: "test"}})
    )
    push_base(maker, f"{ours.host}/shop:1")
    assert ours.tag("shop", "1") is not None

    helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    assert credentials.find(parse(f"{ours.host}/shop:1")) is None
    helper.write_text("#!/bin/sh\necho password=hunter22; exit 1\n")
    with pytest.raises(ToolFailed) as caught:
        credentials.find(parse(f"{ours.host}/shop:1"))
    assert "hunter22" not in caught.value.what + caught.value.hint


def test_an_identity_token_is_exchanged(ours: Registry, maker: LayoutMaker, tmp_path: Path) -> None:
    ours.user, ours.token = ("me", "word"), True
    login(tmp_path / "docker" / "config.json", ours.host, identitytoken="identity")
    push_base(maker, f"{ours.host}/shop:1")

    assert ours.requests("POST /token")


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("password", ["", "wrong-password"])
def test_a_refused_login_is_77_and_stays_secret(
    ours: Registry, tmp_path: Path, token: bool, password: str
) -> None:
    ours.user, ours.token = ("me", "word"), token
    if password:
        login(tmp_path / "docker" / "config.json", ours.host, auth=basic("me", password))
    with pytest.raises(CredentialsRefused) as caught:
        registry.open_image(f"{ours.host}/shop:1")

    assert caught.value.exit_code == 77
    assert "docker login" in caught.value.hint
    assert "wrong-password" not in caught.value.what
    expected = "rejects the credentials" if password else "requires credentials"
    assert expected in caught.value.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"auths": {"H": {"auth": "!"}}}', "entry for"),
    ],
)
def test_a_broken_login_file_is_named_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", text.replace("H", "example.org"))
    with pytest.raises(ConfigurationError, match=message):
        credentials.find(parse("example.org/shop"))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        credentials.find(parse("example.org/shop"))


def test_credentials_have_no_repr() -> None:
    found = credentials.Credentials("me", "hunter22", "identity-x", "bearer-x")
    assert not any(word in repr(found) for word in ("me", "hunter22", "identity-x", "bearer-x"))


def test_the_closest_entry_wins() -> None:
    auths = {
        "example.org": {"auth": basic("host", "x")},
        "example.org/team": {"auth": basic("team", "x")},
        "https://index.docker.io/v1/": {"auth": basic("hub", "x")},
    }
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": auths}), "HOME": "/nonexistent"}

    def user(name: str) -> str | None:
        found = credentials.find(parse(name), environ)
        return found.user if found else None

    assert user("example.org/team/shop") == "team"
    assert user("example.org/other") == "host"
    assert user("acme/shop") == "hub"
    assert user("quay.io/acme/shop") is None
