from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler import verify_at_start
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.manifest import (
    Build,
    Claim,
    Contents,
    DirectoryRefresh,
    File,
    KeyRefresh,
    Manifest,
    NonLocalKey,
    RunRecord,
    Tool,
    build,
    canonical,
    content_digest,
    decode_canonical,
    json_schema,
    parse,
    state_of,
)
from bundler.state.statedir import check_keys, sanitize_key
from bundler.state.tree import StateTree, fold

_HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
_NAME = st.text("abcdé日-_. ", min_size=1, max_size=8).filter(lambda name: name.strip(". ") == name)


_KEY = st.text("abAB[]é /日.", min_size=1, max_size=8)


def _are_apart(keys: set[str]) -> bool:
    try:
        check_keys(keys)
    except ConfigurationError:
        return False
    return len({fold(key) for key in keys}) == len(keys)


@st.composite
def _manifests(draw: st.DrawFn) -> Manifest:
    states = []
    for key in draw(st.sets(_KEY, min_size=1, max_size=4).filter(_are_apart)):
        names = draw(
            st.sets(
                st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6})?", fullmatch=True), min_size=1, max_size=4
            )
        )
        files = [
            File(name, draw(_HEX), draw(st.integers(0, 2**53 - 1)))
            for name in sorted(names)
            if not any(other.startswith(f"{name}/") for other in names)
        ]
        states.append(state_of(key, sanitize_key(key), StateTree(tuple(files)), writable=("w",)))
    return build(Contents(tuple(states)), (File(".gitignore", "0" * 64, 8),))


@given(_manifests())
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert parse(manifest.raw) == manifest


@given(_manifests())
def test_the_content_digest_is_the_documented_one(manifest: Manifest) -> None:
    predicate = json.loads(manifest.raw)["predicate"]
    plain = json.dumps(
        predicate["contents"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    expected = hashlib.sha256(b"state-bundle-contents/v1\0" + plain.encode()).hexdigest()
    assert manifest.content_digest == predicate["contentDigest"] == expected


def _example() -> Manifest:
    trees = {
        "Shop[eu]": StateTree((File("state", "1" * 64, 10),)),
        "dbt": StateTree((File("project/a.sql", "2" * 64, 5), File("state", "3" * 64, 0))),
    }
    states = [state_of(key, sanitize_key(key), tree) for key, tree in trees.items()]
    versioned = NonLocalKey("Far", "VERSIONED_STATE_STORAGE", "0d3f")
    return build(Contents(tuple(states), (versioned,)), (File("@verify.py", "4" * 64, 1),))


@pytest.mark.slow
def test_ten_thousand_mutations_are_refused_with_a_message() -> None:
    raw, chance = _example().raw, random.Random(1)
    for _ in range(10_000):
        mutated = _mutate(bytearray(raw), chance)
        if mutated != raw:
            with pytest.raises(VerificationFailed):
                parse(mutated)
            with pytest.raises((ValueError, RecursionError)):
                verify_at_start.known_to(mutated)


def _mutate(raw: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(raw))
    kind = chance.randrange(6)
    if kind == 0:
        raw[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del raw[at : at + chance.randrange(1, 40)]
    elif kind == 2:
        raw[at:at] = chance.choice([b" ", b"\n", b'"a":1,', b"{}", b"null", b"0", b"1.0", b"\xff"])
    elif kind == 3:
        other = chance.randrange(len(raw))
        raw[at], raw[other] = raw[other], raw[at]
    elif kind == 4:
        raw[at : at + 64] = chance.randbytes(32).hex().encode()
    else:
        raw += raw[at:]
    return bytes(raw)


def _edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The example after an edit, canonical again and with its content digest renewed."""
    import rfc8785

    statement = json.loads(_example().raw)
    edit(statement)
    predicate = statement["predicate"]
    if isinstance(predicate.get("contents"), dict):
        raw = b"state-bundle-contents/v1\0" + rfc8785.dumps(predicate["contents"])
        predicate["contentDigest"] = hashlib.sha256(raw).hexdigest()
    return rfc8785.dumps(statement)


def _states(statement: dict[str, Any]) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = statement["predicate"]["contents"]["states"]
    return states


@pytest.mark.parametrize(
    "edit",
    [
        lambda it: it.update(_type="https://in-toto.io/Statement/v2"),
        lambda it: it.update(predicateType="https://state-bundler.io/state-bundle/v2"),
        lambda it: it.update(extra=1),
        lambda it: it["subject"].pop(),
        lambda it: it["subject"].reverse(),
        lambda it: it["subject"][0].update(name="other"),
        lambda it: _states(it).reverse(),
        lambda it: _states(it).append(_states(it)[0]),
        lambda it: _states(it)[0].update(path="../up"),
        lambda it: _states(it)[0].update(path="a/b"),
        lambda it: _states(it)[0].update(path="@staging"),
        lambda it: _states(it)[1]["files"].reverse(),
        lambda it: _states(it)[0]["files"][0].update(path="../../etc/passwd"),
        lambda it: _states(it)[0]["files"][0].update(size=-1),
        lambda it: _states(it)[0]["files"][0].update(size=2**53),
        lambda it: _states(it)[0]["files"][0].update(size=1.5),
        lambda it: _states(it)[0]["files"][0].update(sha256="A" * 64),
        lambda it: _states(it)[0]["files"][0].update(sha256="5" * 64),
        lambda it: _states(it)[0].update(writable=["/abs"]),
        lambda it: it["predicate"]["support"][0].update(path="../x"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    edit: Callable[[dict[str, Any]], None],
) -> None:
    try:
        raw = _edited(edit)
    except ValueError:  # 2**53 cannot even be written canonically
        return
    with pytest.raises(VerificationFailed):
        parse(raw)
    with pytest.raises(ValueError):
        verify_at_start.known_to(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[" * 100_000, b"{" * 9, b"\xff\xfe", b'{"a":1,"a":1}']
)
def test_what_is_not_a_manifest_is_an_error(raw: bytes) -> None:
    with pytest.raises(VerificationFailed, match="The manifest"):
        parse(raw)


def test_in_toto_reads_it_as_a_statement() -> None:
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

    message = json_format.Parse(_example().raw, StatementMessage())
    statement = Statement.copy_from_pb(message)
    statement.validate()
    assert statement.pb.subject[0].name == "Shop[eu]"


def test_states_are_independent_of_the_order_they_are_given_in() -> None:
    manifest = _example()
    states = tuple(reversed(manifest.states))
    again = build(Contents(states, manifest.predicate.contents.non_local), manifest.support)
    assert again.raw == manifest.raw
    assert content_digest(again.predicate.contents) == manifest.content_digest


def test_the_schema_describes_what_is_written() -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(json_schema())
    validator.validate(json.loads(_example().raw))
    assert not validator.is_valid({})


_RECORD = RunRecord(
    build=Build(commit="a" * 40, tree="b" * 40, dirty=True, remote="host/path", guarded=True),
    refresh=(
        DirectoryRefresh(
            "shop/defs/.local_defs_state",
            (KeyRefresh("Shop[eu]", 2, fetched="2026-01-02T03:04:05Z", stale=True),),
        ),
    ),
    tool=Tool("state-bundler", "1"),
    environment="prod",
)


@pytest.mark.parametrize("value", [_RECORD, RunRecord(), Claim("/app", "0" * 64, "1" * 64)])
def test_records_and_claims_are_read_as_they_were_written(value: msgspec.Struct) -> None:
    assert decode_canonical(canonical(value), type(value), "It") == value


def test_a_record_finds_a_key_in_its_directory() -> None:
    found = _RECORD.key("shop/defs/.local_defs_state", "Shop[eu]")
    assert found is not None
    assert found.attempts == 2
    assert _RECORD.key("elsewhere", "Shop[eu]") is None


# The vectors of RFC 8785, section 3.2 and appendix B, as far as a manifest can hold their kind.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"b":1,"a":2}', '{"a":2,"b":1}'),
        (
            '{"\\u20ac":1,"\\r":2,"1":3,"\\u0080":4,"\\u00f6":5}',
            '{"\\r":2,"1":3,"\u0080":4,"ö":5,"€":1}',
        ),
        (
            '"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/"',
            '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"',
        ),
        ('{"\\ud83d\\ude00":1,"\\ufb33":2}', '{"😀":1,"\ufb33":2}'),
        ("9007199254740991", "9007199254740991"),
        ("[56,{}]", "[56,{}]"),
    ],
)
def test_canonical_bytes_are_those_of_rfc_8785(text: str, expected: str) -> None:
    import rfc8785

    assert rfc8785.dumps(json.loads(text)) == expected.encode()
