"""Our predicates in a signed attestation, as cosign makes one.

cosign itself is a Go program that no package index carries. ``cosign_envelopes.json`` was made by
its own package for statements and the library it signs with; it says which. Today's predicates
go the same way through in-toto's library for Python: protocol buffers, whose numbers are floating,
and DSSE's encoding of what is signed.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from in_toto_attestation.v1.statement_pb2 import Statement

from bundler.artifacts.open import open_artifact
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.state.manifest import PREDICATE_TYPE, Predicate, build, canonical
from tests.support.bundles import make_bundle, make_record
from tests.support.embedding import embed_layout

_RECORDED = json.loads((Path(__file__).parent / "cosign_envelopes.json").read_text())
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_ALGORITHM = ec.ECDSA(hashes.SHA256())


def _signed(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is over: https://github.com/secure-systems-lab/dsse."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _opened(envelope: dict[str, Any], public: ec.EllipticCurvePublicKey) -> Statement:
    """The statement in an envelope that this key has signed, as a policy engine reads it."""
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public.verify(signature, _signed(envelope["payloadType"], payload), _ALGORITHM)
    return json_format.Parse(payload, Statement())


def _attested(statement: Statement) -> Any:
    return json_format.MessageToDict(statement)["predicate"]


def _public(name: str) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_public_key(_RECORDED[name]["public"].encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


@pytest.mark.parametrize(
    ("name", "kind"), [("states", PREDICATE_TYPE), ("slsa", "https://slsa.dev/provenance/v1")]
)
def test_what_cosign_attests_is_our_predicate_bit_for_bit(name: str, kind: str) -> None:
    recorded = _RECORDED[name]
    statement = _opened(recorded["envelope"], _public(name))
    assert statement.predicate_type == kind
    assert statement.subject[0].name == "registry.example.org/shop"
    assert canonical(_attested(statement)) == recorded["predicate"].encode()
    altered = {**recorded["envelope"], "payloadType": "text/plain"}
    with pytest.raises(InvalidSignature):
        _opened(altered, _public(name))


def test_the_manifest_can_be_rebuilt_from_the_attestation() -> None:
    statement = _opened(_RECORDED["states"]["envelope"], _public("states"))
    reported = msgspec.json.decode(canonical(_attested(statement)), type=Predicate)
    assert build(reported.contents, reported.support).predicate == reported
    assert {state.key for state in reported.contents.states} == {'Shop[a<b>&"ü]', "B"}


@pytest.mark.parametrize("slsa", [False, True])
def test_todays_predicates_survive_an_attestation(
    tmp_path: Path, slsa: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {"Shop[a<b>&ü]": {"state": b"[1]", "large": bytes(70_000)}, "B": {"state": b"{}"}}
    bundle = make_bundle(tmp_path / "shop/defs/.local_defs_state", states)
    embed_layout(None, [bundle], make_record(bundle), tmp_path / "image")
    name = f"oci:{tmp_path / 'image'}"
    with open_artifact(name) as artifact:
        digest = artifact.digest
    assert digest is not None
    assert run(cli, ["predicate", *(["--slsa"] if slsa else []), name]) == 0
    printed = capsys.readouterr().out.rstrip("\n").encode()
    statement = Statement(
        type="https://in-toto.io/Statement/v0.1",
        predicate_type="https://slsa.dev/provenance/v1" if slsa else PREDICATE_TYPE,
    )
    subject = statement.subject.add(name="registry.example.org/shop")
    subject.digest["sha256"] = digest.removeprefix("sha256:")
    statement.predicate.update(json.loads(printed))
    payload = json_format.MessageToJson(statement).encode()
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(_signed(_PAYLOAD_TYPE, payload), _ALGORITHM)
    envelope = {
        "payloadType": _PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    assert canonical(_attested(_opened(envelope, key.public_key()))) == printed
    altered = payload.replace(b"Shop", b"Shoq")
    with pytest.raises(InvalidSignature):
        _opened({**envelope, "payload": base64.b64encode(altered).decode()}, key.public_key())
