"""A key that holds a credential is refused, and no command shows the credential."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundler.system.url_credentials import has_credentials, without_credentials
from tests.support import forked

PW = "hunter2canary"
TOKEN = "t0kencanary"

REFUSED = {
    f"https://me:{PW}@git.example.org/x.git": 77,
    f"https://:{PW}@git.example.org/x.git": 77,
    f"postgres://me:sl/ash{PW}@db.example.org/x": 77,
    f"https%3A%2F%2Fme%3A{PW}%40git.example.org": 77,
    f"me:{PW}@db.example.org/x": 77,
    f"ssh://me:{PW}@host/x": 77,
    f"https://ghp_{TOKEN}@git.example.org/x.git": 77,
    f"https://{TOKEN}@git.example.org/x.git": 78,
    f"//{TOKEN}@git.example.org/x.git": 78,
    f"https://api.example.org/v1?workspace=1&api_key={TOKEN}": 78,
    f"https://api.example.org/v1?token={TOKEN}": 78,
    f"api.example.org/v1?token={TOKEN}": 78,
    f"https://x.blob.example.org/c?sv=1&sig={TOKEN}": 78,
    f"https://api.example.org/v1#access_token={TOKEN}": 78,
    f"https://api.example.org/v1#{TOKEN}{TOKEN}": 78,
    f"jdbc:sqlserver://db;user=x;password={PW}": 78,
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_a_credential_in_a_url(url: str) -> None:
    assert has_credentials(f"Feed[{url}]") == (REFUSED[url] == 77)
    shown = without_credentials(f"see Feed[{url}], then go on")
    assert "canary" not in shown
    assert shown.startswith("see Feed[")
    assert shown.endswith(", then go on")


@pytest.mark.parametrize(
    "text",
    [
        "Feed[acme]",
        "Feed[https://api.example.org:8443/v1/a@b?workspace=12&page=2#section-one]",
        "Feed[git@github.com:acme/dbt.git]",
        "Feed[ssh://git@github.com/acme/dbt.git]",
        "Feed[postgres://reader@db.example.org/x]",
        "Feed[jane@example.org]",
        "Feed[shop:1.4@sha256:0123456789]",
        "Feed[https://[::1]:8080/a@b]",
        "Feed[kafka:9092@topic.example]",
        "https://registry.example.org/@scope/package",
    ],
)
def test_what_is_not_one(text: str) -> None:
    assert without_credentials(text) == text
    assert not has_credentials(text)


def _project(root: Path, key: str) -> Path:
    root.mkdir()
    (root / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\n[[tool.state-bundler.source]]\n'
        f'path = "state"\nkey = "{key}"\n'
        "command = [\"python3\", \"-c\", \"open(r'{state_path}', 'w').write('[1]')\"]\n"
    )
    return root


def _said(root: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    done = forked.said("state-bundler", *arguments, cwd=root, env={**os.environ, **variables})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        *list(REFUSED)[:1],
        pytest.param(list(REFUSED)[7], marks=pytest.mark.slow),
        pytest.param(f"https://h/v1?api_key={TOKEN}", marks=pytest.mark.slow),
    ],
)
def test_no_command_shows_it_and_none_publishes_it(tmp_path: Path, url: str) -> None:
    root = _project(tmp_path / "shop", f"Feed[{url}]")
    code, said = _said(root, "refresh")
    assert code == REFUSED.get(url, 78), said
    assert "canary" not in said
    assert not list(root.rglob("@manifest.json"))
    for arguments in (["status"], ["status", "--format", "json"], ["status", "--html", "page.html"],
                      ["doctor"], ["doctor", "--format", "json"]):  # fmt: skip
        code, said = _said(root, *arguments)
        assert "canary" not in said
        assert code == (1 if "doctor" in arguments else 0), said
    assert "✗ Feed[https://" in _said(root, "status", PYTHONUTF8="1")[1]
    assert "✗ findings (1): The defs state key 'Feed[" in _said(root, "doctor", PYTHONUTF8="1")[1]
    page = (root / "page.html").read_text()
    assert "canary" not in page
    assert "contains the credentials of a URL" in page


def test_the_value_of_a_variable_in_a_key_is_not_shown_in_any_encoding(tmp_path: Path) -> None:
    root = _project(tmp_path / "shop", f"Feed[{PW.encode().hex()}]")
    code, said = _said(root, "refresh", VENDOR_PASS=PW)
    assert code == 77
    assert "VENDOR_PASS" in said
    for arguments in (["refresh"], ["status"], ["status", "--format", "json"], ["doctor"]):
        said = _said(root, *arguments, VENDOR_PASS=PW)[1]
        assert PW.encode().hex() not in said
        assert "Feed[[VENDOR_PASS]]" in said
