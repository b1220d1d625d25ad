"""Answers that are not data, for every HTTP client and way: a part of the whole table.

`make bodies` tries everything, and writes docs/evidence/answers.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bundler.errors import BundlerError
from tests.support.answers import FAULTS, GOOD
from tests.support.bodies import CLIENTS, WAYS, Cell, refresh_cells, served, thinned

Outcome = dict[Cell, BundlerError | None]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    cells = thinned(6)
    with served() as ports:
        yield refresh_cells(cells, tmp_path_factory.mktemp("bodies") / "project", ports)


def test_every_answer_client_and_way_is_tried(outcome: Outcome) -> None:
    assert {cell.answer for cell in outcome} == {*GOOD, *FAULTS}
    assert {cell.client for cell in outcome} == set(CLIENTS)
    assert {cell.way for cell in outcome} == set(WAYS)


def test_no_response_without_data_becomes_a_state(outcome: Outcome) -> None:
    silent = [cell.key for cell, failure in outcome.items() if cell.expected and failure is None]
    assert not silent


def test_no_good_answer_is_refused(outcome: Outcome) -> None:
    refused = [failure.what for cell, failure in outcome.items() if failure and not cell.expected]
    assert not refused


def test_each_has_the_class_of_what_happened(outcome: Outcome) -> None:
    wrong = [
        f"{failure.exit_code} instead of {cell.expected}: {failure.what}"
        for cell, failure in outcome.items()
        if failure and cell.expected and failure.exit_code != cell.expected
    ]
    assert len(wrong) <= len(outcome) // 100, "\n".join(wrong)


def test_each_says_what_to_do(outcome: Outcome) -> None:
    for cell, failure in outcome.items():
        if failure is not None:
            assert failure.what.startswith(f"{cell.key}: "), failure.what
            assert failure.hint, failure.what
            assert "Traceback" not in failure.what + failure.hint
