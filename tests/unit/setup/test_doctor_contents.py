"""`doctor` reports what the vendors' answers contain, in a line a key, and never the values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, Finding, contents
from bundler.setup.doctor.contents import ContentsReport
from tests.support.bundles import make_bundle

PYPROJECT = """\
[project]
name = "shop"
version = "1"

[tool.dg.project]
root_module = "shop"
"""
EXPRESSION = 'Odbc.DataSource("Server=db.internal.example;Uid=report;Pwd=hunter2-canary")'


def _findings(root: Path, **states: str) -> list[Finding]:
    directory = root / "shop" / "defs" / ".local_defs_state"
    make_bundle(directory, {key: {"state": text.encode()} for key, text in states.items()})
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "shop" / "__init__.py").touch()
    return list(contents.contents(DoctorContext(survey(root))))


def _held(text: str) -> tuple[int, int, int]:
    found = ContentsReport()
    found.take(text.encode(), "state")
    return len(found.credentials), len(found.emails), len(found.hosts)


def test_each_key_has_a_line_and_no_line_shows_a_value(tmp_path: Path) -> None:
    report = json.dumps({"source": [{"expression": EXPRESSION}], "by": "ada@example.com"})
    powerbi, clean = _findings(tmp_path, PowerBI=report, Sigma='{"name": "Orders"}')
    assert powerbi.grade == "warn"
    assert powerbi.what == (
        "PowerBI contains 1 password or token, 1 e-mail address, 1 host (db.internal.example)."
    )
    assert "hunter2" not in repr(powerbi)
    assert "(state)" in powerbi.why
    assert clean == Finding("ok", "Sigma contains no password, e-mail address or host.")


def test_addresses_and_hosts_alone_are_reported_without_a_warning(tmp_path: Path) -> None:
    (finding,) = _findings(tmp_path, Looker='{"email": "a@b.example", "url": "https://x.example/"}')
    assert (finding.grade, finding.what) == (
        "ok",
        "Looker contains 1 e-mail address, 1 host (x.example).",
    )


def test_without_a_published_state_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (finding,) = contents.contents(DoctorContext(survey(tmp_path)))
    assert finding.grade == "ok"


@pytest.mark.parametrize(
    "text",
    [
        EXPRESSION,
        json.dumps(json.dumps({"password": "correct-horse"})),
        "postgresql://report:s3cr3t-word@db/x",
        "AccountKey=abcdEFGH12345678/+==;EndpointSuffix=core.windows.net",
        "password: swordfish",
        "-----BEGIN RSA PRIVATE KEY-----",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_credentials_are_seen_in_every_form(text: str) -> None:
    assert _held(text)[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "password: \"{{ env_var('DB_PASSWORD') }}\"",
        'Password=null; "password": "********"',
        "select password_changed_at, api_key_id from users where token = true",
        '{"name": "password", "type": "string"}',
        "https://example.com:8443/path@2x",
    ],
)
def test_what_only_looks_like_a_credential_is_not_one(text: str) -> None:
    assert _held(text)[0] == 0


def test_pictures_and_decorators_are_no_addresses() -> None:
    assert _held("logo@2x.png @dbt_assets user@localhost")[1] == 0
    assert _held('("acme.eu-west-1.snowflakecomputing.com", "WH")')[2] == 1


def test_what_is_far_behind_the_start_is_found(tmp_path: Path) -> None:
    padding = "x " * (512 * 1024)
    (finding,) = _findings(tmp_path, Long=f"{padding}{EXPRESSION}")
    assert finding.grade == "warn"


def test_a_large_state_is_read_in_part_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_MOST_BYTES", 1024 * 1024)
    (finding,) = _findings(tmp_path, Large="x" * (2 * 1024 * 1024))
    assert "in its first 1 MB" in finding.what


def test_what_is_repeated_is_counted_once(tmp_path: Path) -> None:
    line = '{"by": "ada.lovelace@example.com", "at": "https://app.example.com/x"}, '
    (finding,) = _findings(tmp_path, Long=line * 1000)
    assert finding.what == "Long contains 1 e-mail address, 1 host (app.example.com)."
