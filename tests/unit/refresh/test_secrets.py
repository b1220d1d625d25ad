"""What is secret, and that no form of it stays in a text or goes unseen."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.refresh import secrets as scanning
from bundler.refresh.secrets import Secrets, collect, neutralise

VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=8, max_size=40
)
FORMS = (
    lambda value: value,
    lambda value: base64.b64encode(value.encode()).decode(),
    lambda value: base64.b64encode(b"user:" + value.encode() + b"\n").decode(),
    lambda value: base64.urlsafe_b64encode(b"x" + value.encode() + b"tail").decode(),
    lambda value: quote(value, safe=""),
    quote,
    quote_plus,
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False).replace("/", "\\/"),
)


@given(value=VALUES, before=st.binary(max_size=30), form=st.sampled_from(FORMS))
def test_a_secret_is_found_in_every_form_wherever_it_stands(
    tmp_path_factory: pytest.TempPathFactory, value: str, before: bytes, form: object
) -> None:
    assert callable(form)
    path = tmp_path_factory.getbasetemp() / "state"
    path.write_bytes(before + str(form(value)).encode() + before)
    assert Secrets({"NAME": value}).find(path) == "NAME"


@given(value=VALUES.filter(lambda value: value not in "before [NAME] after"))
def test_a_redacted_text_names_the_variable_in_place_of_the_value(value: str) -> None:
    redacted = Secrets({"NAME": value}).redact(f"before {value} after")
    assert redacted == "before [NAME] after"


def test_a_secret_across_the_border_of_two_reads_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_CHUNK_BYTES", 64)
    path = tmp_path / "state"
    secrets = Secrets({"NAME": "a-secret-of-some-length"})
    for offset in range(40, 70):
        path.write_bytes(b"." * offset + b"a-secret-of-some-length" + b"." * 100)
        assert secrets.find(path) == "NAME", offset
    path.write_bytes(b"." * 500)
    assert secrets.find(path) is None


def test_names_tell_what_is_secret_and_the_configuration_decides(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.touch()
    environment = {
        "VENDOR_TOKEN": "0123456789",
        "DB_PASSWORD": "short",
        "SSH_KEY": str(file),
        "PLAIN": "0123456789",
        "PUBLIC_KEY": "0123456789",
        "ACCOUNT": "acme-12345",
        "API_URL": "https://api.example.org:8080/v1",
        "DATABASE_URL": "postgres://user:hunter2@db/x",
    }
    found = collect(
        environment,
        named=["PLAIN"],
        from_file=["ACCOUNT", "API_URL", "DATABASE_URL"],
        excluded=["PUBLIC_KEY"],
    )
    assert set(found.values) == {"VENDOR_TOKEN", "PLAIN", "ACCOUNT", "DATABASE_URL"}


def test_urls_lose_their_user_info_and_their_query() -> None:
    text = "GET https://me:pass@example.org/path?token=x failed, see http://a/b?c"
    assert Secrets({}).redact(text) == "GET https://example.org/path failed, see http://a/b"


def test_control_characters_become_visible() -> None:
    assert neutralise("a\x1b[31mb\r\u202ec\nd") == "a\\x1b[31mb\\r\\u202ec\nd"
