"""Which files of a package are private keys, and which only look like one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from bundler.artifacts.python.credentials import NOTHING, below, refuse
from bundler.artifacts.python.trees import folder_tree
from bundler.errors import ConfigurationError
from bundler.listener import SILENT
from bundler.system.credential_files import holds_credentials

_EC = ec.generate_private_key(ec.SECP256R1())
_RSA = rsa.generate_private_key(65537, 2048)
_PRIVATE = [
    key.private_bytes(encoding, form, NoEncryption())
    for key in (_EC, _RSA)
    for encoding in (Encoding.PEM, Encoding.DER)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
] + [b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"]
_PUBLIC = [
    *(
        key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        for key in (_EC, _RSA)
        for encoding in (Encoding.PEM, Encoding.DER)
    ),
    b"-----BEGIN CERTIFICATE-----\n",
    b"0\x82\x03\x000\x82\x02\x00\xa0\x03\x02\x01\x02",  # how a certificate begins
]
_PUBLIC_PEM = [each for each in _PUBLIC if b"-----BEGIN " in each]  # an image holds these alone
_LOOKS_LIKE_ONE = [b"", b"PK\x03\x04 Keynote", b"menu.open = Open\n", b"0 1 2\n"]


def _found(folder: Path, name: str, content: bytes) -> list[str]:
    (folder / name).write_bytes(content)
    return list(below(folder))


@pytest.mark.parametrize("name", ["a.key", "a.pem", "A.KEY"])
def test_a_package_is_refused_for_private_keys_alone(name: str, tmp_path: Path) -> None:
    for content in _PRIVATE:
        assert _found(tmp_path, name, content) == [name], content[:40]
    for content in (*_PUBLIC, *_LOOKS_LIKE_ONE):
        assert _found(tmp_path, name, content) == [], content[:40]
        assert holds_credentials(name, tmp_path / name) is (content not in _PUBLIC_PEM)


_PEM = _PRIVATE[4].decode()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"type": "service_account", "private_key": _PEM}, True),
        ({"properties": {"private_key": {"type": "string", "description": "x" * 600}}}, False),
        ({"private_key": "Geheimer Schl\u00fcssel", "more": "y" * 600}, False),
        ({"note": _PEM}, False),
    ],
)
def test_a_json_file_is_a_key_if_it_holds_one(
    document: dict[str, object], expected: bool, tmp_path: Path
) -> None:
    content = json.dumps(document).encode()
    assert bool(_found(tmp_path, "project-0123.json", content)) is expected


def test_a_state_is_not_searched_wherever_it_is(tmp_path: Path) -> None:
    for place in ("state", ".local_defs_state"):
        state = tmp_path / "shop" / place
        (state / "A").mkdir(parents=True)
        (state / "@manifest.json").touch()
        (state / "A/client.key").write_bytes(_PRIVATE[0])
        (state / "A/.env").touch()
    assert list(below(tmp_path)) == []
    refuse("app.pex", [folder_tree(tmp_path)], NOTHING, SILENT)
    (tmp_path / "shop/.env").touch()
    assert list(below(tmp_path)) == ["shop/.env"]
    with pytest.raises(ConfigurationError, match=r"credentials: shop/\.env\."):
        refuse("app.pex", [folder_tree(tmp_path)], NOTHING, SILENT)


def test_a_folder_that_is_a_document(tmp_path: Path) -> None:
    for name in ("talk.key", "certificates.pem"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Index.zip").write_bytes(b"PK")
    assert list(below(tmp_path)) == []
    (tmp_path / "talk.key/id_rsa").touch()
    assert list(below(tmp_path)) == ["talk.key/id_rsa"]
