"""An artifact's labels as text: canonical JSON, so that any change is noticed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bundler.state.manifest import Claim, RunRecord, canonical, decode_canonical


class _Claims(msgspec.Struct, frozen=True):
    states: tuple[Claim, ...]


_BEFORE = b'{"states":'


def encode_claims(claims: Iterable[Claim]) -> bytes:
    """A JSON array, sorted by path."""
    whole = canonical(_Claims(tuple(sorted(claims, key=lambda claim: claim.path))))
    return whole[len(_BEFORE) : -1]


def decode_claims(raw: bytes, name: str) -> tuple[Claim, ...]:
    """Decodes the claims. Raises `VerificationFailed` if they were altered. name: of the
    artifact."""
    whole = _BEFORE + raw + b"}"
    return decode_canonical(whole, _Claims, f"The state label of {name}").states


def decode_record(raw: bytes, name: str) -> RunRecord:
    """Decodes the record. Raises `VerificationFailed` if it was altered. name: of the artifact."""
    return decode_canonical(raw, RunRecord, f"The run record in {name}")
