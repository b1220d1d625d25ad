from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.system.parallel import in_parallel


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000), max_size=200))
def test_results_come_in_order(sizes: list[int]) -> None:
    items = list(enumerate(sizes))
    assert list(in_parallel(lambda item: item[0], items, lambda item: item[1])) == list(
        range(len(sizes))
    )


def test_an_error_comes_after_the_results_before_it() -> None:
    def work(number: int) -> int:
        if number == 150:
            raise ValueError(number)
        return number

    found = []
    with pytest.raises(ValueError, match="150"):  # noqa: PT012  # what came before counts, too
        for number in in_parallel(work, range(300), lambda _: 100_000):
            found.append(number)  # noqa: PERF402  # the error would lose a list
    assert found == list(range(150))


def test_little_work_starts_no_thread() -> None:
    threads = in_parallel(lambda _: threading.current_thread(), range(50), lambda _: 10)
    assert set(threads) == {threading.main_thread()}
