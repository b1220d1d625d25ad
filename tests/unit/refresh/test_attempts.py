"""`bundler.refresh.attempts`: what a deadline tells. Whole attempts: test_refresh_outages.py."""

from __future__ import annotations

from bundler.errors import Unavailable
from bundler.refresh.attempts import _telling
from bundler.refresh.outcome.classify import Failure


def _failure(says: str, *, late: bool = False) -> Failure:
    return Failure(Unavailable(f"Key[x]: {says}.", hint="Wait.", key="Key[x]"), late=late)


def test_a_deadline_in_a_second_attempt_tells_what_ended_the_first() -> None:
    late = _failure("it did not finish within 15 s", late=True)
    told = _telling(late, [_failure("host:443 answered 500")])
    assert told.what == (
        "Key[x]: it did not finish within 15 s; the previous attempt: host:443 answered 500."
    )
    assert (told.hint, told.key, type(told)) == ("Wait.", "Key[x]", Unavailable)


def test_every_other_failure_stands_for_itself() -> None:
    late, other = _failure("late", late=True), _failure("host:443 answered 503")
    assert _telling(late, []) is late.error
    assert _telling(other, [late]) is other.error
