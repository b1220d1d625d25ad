from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.system import parallel, process
from bundler.system.parallel import in_parallel, update, while_programs_run, while_waiting
from tests.support.environments import ROOT


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000), max_size=200))
def test_results_come_in_order(sizes: list[int]) -> None:
    items = list(enumerate(sizes))
    assert list(in_parallel(lambda item: item[0], items, lambda item: item[1])) == list(
        range(len(sizes))
    )


def test_the_first_error_is_raised() -> None:
    def work(number: int) -> None:
        if number in (20, 150):
            time.sleep(0.1 if number == 20 else 0)
            raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item 20"):
        list(in_parallel(work, range(300), lambda _: 100_000))


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 7])
def test_a_stream_of_any_size_updates_every_hash(size: int) -> None:
    data = (b"%08d" % size) * (size // 8 + 1)
    stream = io.BytesIO(data[:size])
    hashes = [hashlib.sha1(usedforsecurity=False), hashlib.sha256()]
    update(stream, hashes)
    assert [each.digest() for each in hashes] == [
        hashlib.sha1(data[:size], usedforsecurity=False).digest(),
        hashlib.sha256(data[:size]).digest(),
    ]


def test_little_work_starts_no_thread() -> None:
    threads = in_parallel(lambda _: threading.current_thread(), range(50), lambda _: 10)
    assert set(threads) == {threading.main_thread()}


def test_waiting_overlaps_and_results_come_in_order() -> None:
    together = threading.Barrier(8)  # is broken unless eight wait concurrently

    def work(item: int) -> int:
        together.wait(60)
        return item

    assert list(while_waiting(work, range(16), lambda _: True)) == list(range(16))
    assert list(while_waiting(str, [1], lambda _: True)) == ["1"]


def test_what_does_not_wait_is_done_one_by_one() -> None:
    threads = list(
        while_waiting(lambda _: threading.current_thread(), range(16), lambda item: item % 2 == 0)
    )
    assert set(threads[1::2]) == {threading.main_thread()}
    assert threading.main_thread() not in threads[::2]


_DECODED = re.compile(r"(?:json\.decode\(.*type=|msgspec\.convert\(\w+, )(_?[A-Z]\w+)")


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("artifacts", "state", "store")
        for path in sorted((ROOT / "bundler" / folder).rglob("*.py"))
        if _DECODED.search(path.read_text())
    ],
    ids=lambda path: path.stem,
)
def test_msgspec_knows_a_model_before_threads_decode_it(path: Path) -> None:
    """Two threads that decode a model for the first time concurrently crash msgspec 0.22."""
    text = path.read_text()
    prepared = (
        text.partition("json.Decoder(")[0].rpartition("\n\n")[2]
        + text[text.find("json.Decoder(") :]
    )
    for model in _DECODED.findall(text):
        assert "json.Decoder(" in text, path
        assert model in prepared, f"{path}: add msgspec.json.Decoder({model}) at its end"


def test_programs_run_concurrently_on_as_many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: 3)
    together = threading.Barrier(3, timeout=30)

    def work(number: int) -> bytes:
        together.wait()
        given = b"%d\n" % number * 100_000  # more than a pipe holds, and than one read returns
        return process.run(["sh", "-c", "sleep 0.3; cat"], stdin=given).stdout[:2]

    assert while_programs_run(work, range(6)) == [b"%d\n" % each for each in range(6)]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_an_exception_ends_the_programs_and_lets_them_clean_up(
    failure: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    pid, cleaned = tmp_path / "pid", tmp_path / "cleaned"

    def work(item: str) -> None:
        if item == "fails":
            while not (pid.exists() and pid.read_text().endswith("\n")):
                time.sleep(0.01)
            raise failure
        try:
            process.run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"])
        except BaseException:
            process.check(["sh", "-c", f"sleep 0.3; touch {cleaned}"])
            raise

    began = time.monotonic()
    with pytest.raises(failure):
        while_programs_run(work, ["fails", "runs", "waits"])
    assert time.monotonic() - began < 30
    assert cleaned.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
