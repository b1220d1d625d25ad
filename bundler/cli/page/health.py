"""The health of a key and of its artifact or project, in the words that a page filters by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bundler.cli.page.markup import Html, filled, text
from bundler.workflows.status import Holder, KeyStatus


class Badge(NamedTuple):
    """A word about a key or a holder. kind: a class of the style sheet. why: for a tooltip."""

    word: str
    kind: str
    why: str = ""


_VERIFIED = Badge("verified", "good", "Every byte was compared with the manifest.")
_NOT_VERIFIED = Badge("not verified", "quiet", "Only the manifest was read.")
_STALE = Badge("stale", "changed", "Its system was unavailable: an earlier state was kept.")
_NO_STATE = Badge("no state", "alarm")
_DIRTY = Badge("dirty", "changed", "Built from a work tree with uncommitted changes.")
ATTENTION = "needs attention"


def of_key(key: KeyStatus, holder: Holder) -> Iterator[Badge]:
    """Whether the key's state is the one that its manifest names, and what else is wrong."""
    if key.is_missing:
        yield _NO_STATE
    if key.problem:
        yield Badge("problem", "alarm", key.problem)
    elif key.size is not None:
        yield _VERIFIED if holder.verified else _NOT_VERIFIED
    if key.is_stale:
        yield _STALE
    for breach in holder.breaches:
        if breach.key == key.key:
            yield Badge(breach.rule, "alarm", breach.what)


def of_holder(holder: Holder) -> Iterator[Badge]:
    """Verified or not, and all that a reader should know before anything is deployed."""
    if holder.verified:
        yield _VERIFIED
    elif holder.failure is None:
        yield _NOT_VERIFIED
    else:
        yield Badge("altered" if holder.keys else "unreadable", "alarm", holder.failure.what)
    for rule in dict.fromkeys(breach.rule for breach in holder.breaches):
        yield Badge(rule, "alarm", " ".join(b.what for b in holder.breaches if b.rule == rule))
    if any(key.is_missing for key in holder.keys):
        yield _NO_STATE
    if any(key.is_stale for key in holder.keys):
        yield _STALE
    if holder.record and holder.record.build.dirty:
        yield _DIRTY
    if holder.signer:
        yield Badge("signed", "good", f"Signed by {holder.signer}.")


def badges(found: Iterable[Badge]) -> Html:
    one = '<span title="{}" class="badge {}">{}</span>'
    return text(filled(one, badge.why, badge.kind, badge.word) for badge in found)


def words(found: Sequence[Badge]) -> str:
    """The value of an attribute that the page's script filters by."""
    attention = [ATTENTION for badge in found if badge.kind in ("alarm", "changed")]
    return "|".join(dict.fromkeys([*(badge.word for badge in found), *attention]))
