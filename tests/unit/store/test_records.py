"""The records of a store, which another program may have written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state import manifest
from bundler.state.manifest import Dated, KeyRefresh, Model, Time, decode_canonical
from bundler.store import open_store, records
from bundler.store.records import Change, Current, Entry, Pin, encode
from tests.support.storefixtures import Make

_UUID = "00000000-0000-0000-0000-000000000000"
_MOMENT = "2026-01-04T00:00:00Z"


def test_every_record_with_a_time_is_dated() -> None:
    with_times = {
        kind
        for module in (manifest, records)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Model)
        for field in msgspec.structs.fields(kind)
        if Time in (field.type, *get_args(field.type))
    }
    assert {KeyRefresh, Entry, Change} <= with_times
    assert {kind for kind in with_times if not issubclass(kind, Dated)} == set()


@pytest.mark.parametrize(
    "record",
    [
        Entry(_UUID, 1, "0" * 64, 1, _MOMENT),
        Entry(_UUID, 1, "0" * 64, 1, "2026-01-01T00:00:00Z", confirmed=_MOMENT),
        KeyRefresh("A", fetched=_MOMENT),
    ],
)
def test_an_impossible_time_is_refused_in_a_record(record: Model) -> None:
    raw = encode(record).replace(b"2026-01-04", b"2026-02-30")
    with pytest.raises(VerificationFailed, match=r"^It cannot be read: day is out of range"):
        decode_canonical(raw, type(record), "It")


def test_an_empty_tuple_of_any_origin_is_written_in_canonical_form() -> None:
    """In Python 3.10 that of a generator is another object than `()`."""
    pins = tuple(Pin(_UUID, key) for key in "")
    current = Current(Change(1, _UUID, _MOMENT, "push", ()), {}, pins)
    assert decode_canonical(encode(current), Current, "it") == current


def test_what_could_not_be_read_again_is_not_pushed(
    tmp_path: Path, states: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}/store")
    store.push(states(A=b"1"))
    many = {"state": b"", **{f"file-{number}": b"%d" % number for number in range(30)}}
    large = states(A=b"2", B=many)
    small = [states(**{f"K{number}": b"%d" % number}) for number in range(30)]
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", 4000)
    with pytest.raises(ConfigurationError, match="larger than 4000 bytes"):
        store.push(large)
    with suppress(ConfigurationError):
        for new in small:
            store.push(new)
    assert len(records.encode(store.require_current())) > 3500, "refused as late as possible"
    assert len(open_store(store.url).currents()) > 2
