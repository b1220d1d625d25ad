"""`bundler.refresh.attempts`: what a deadline reports. Whole attempts: test_refresh_outages.py."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from bundler.errors import Unavailable
from bundler.refresh.attempts import _LOG_BYTES, _tail, _telling
from bundler.refresh.outcome.findings import Failure
from bundler.refresh.secrets import Secrets

TOKEN = "".join(f"{number:04x}" for number in range(7000, 7300))
LINES = "\n".join(TOKEN[at : at + 64] for at in range(0, len(TOKEN), 64))


def _failure(says: str, *, late: bool = False) -> Failure:
    return Failure(Unavailable.of_key("Key[x]", f"{says}.", hint="Wait."), late=late)


def test_a_deadline_in_a_second_attempt_reports_what_ended_the_first() -> None:
    late = _failure("it did not finish within 15 s", late=True)
    reported = _telling(late, [_failure("host:443 answered 500")])
    assert reported.what == (
        "Key[x]: it did not finish within 15 s; the previous attempt: host:443 answered 500."
    )
    assert (reported.hint, reported.key, type(reported)) == ("Wait.", "Key[x]", Unavailable)


def test_every_other_failure_is_reported_separately() -> None:
    late, other = _failure("late", late=True), _failure("host:443 answered 503")
    assert _telling(late, []) is late.error
    assert _telling(other, [late]) is other.error


@pytest.mark.slow
@pytest.mark.parametrize("after", ["\n" + "é log\n" * 9000, "\n" + "x" * 60000, "é" * 60000])
@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (TOKEN, TOKEN),
        (TOKEN, base64.b64encode(TOKEN.encode()).decode()),
        (TOKEN, f"\x1b[31m{TOKEN}"),
        (TOKEN, f"{TOKEN} " * 40),
        (LINES, LINES),
        (LINES, f"{LINES}\n" * 40),
    ],
    ids=["plain", "base64", "coloured", "repeated", "lines", "repeated lines"],
)
def test_no_part_of_a_secret_is_left_where_the_output_is_cut(
    value: str, printed: str, after: str, tmp_path: Path
) -> None:
    secrets, log = Secrets({"TOKEN": value}), tmp_path / "log"
    longest = secrets.longest
    for inside in (1, 8, 600, 1190, 1210, len(printed) // 2):
        for cut in (_LOG_BYTES, _LOG_BYTES + longest):
            end = after.encode()[-cut + inside :]
            log.write_bytes(b"begin\n" + printed.encode() + end)
            shown = "\n".join(_tail(log, secrets, None))
            parts = [printed[at : at + 12] for at in range(0, len(printed) - 12, 7)]
            assert not [part for part in parts if part in shown]
            assert ("log" in after) == ("log" in shown)


def test_short_output_is_complete(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"one {TOKEN}\n" + "x" * 1000)
    assert _tail(tmp_path / "log", Secrets({"TOKEN": TOKEN}), None) == ["one [TOKEN]", "x" * 1000]
