"""`outcome.losses`: collections that have gone, though most of the state is there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bundler.refresh.outcome.losses import Loss, census, losses

HALF = 0.5
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=4)
    ),
    max_leaves=30,
)


def _looker(users: int, dashboards: int) -> dict[str, Any]:
    return {
        "users_by_id": {str(number): "{}" for number in range(users)},
        "dashboards_by_id": {
            f"dashboard-{number}": json.dumps({"tiles": [{"id": 1}, {"id": 2}]})
            for number in range(dashboards)
        },
    }


def test_a_list_that_answers_nothing_is_a_loss_whatever_its_share_of_the_whole() -> None:
    assert losses(_looker(7, 300), _looker(0, 300), HALF) == (Loss("users_by_id", 7, 0),)


def test_what_is_in_strings_counts_too() -> None:
    now = _looker(7, 30)
    now["dashboards_by_id"] = dict.fromkeys(now["dashboards_by_id"], '{"tiles": []}')
    assert losses(_looker(7, 30), now, HALF) == (Loss("tiles", 60, 0),)


def test_less_than_the_share_of_a_large_collection_is_a_loss() -> None:
    assert losses(_looker(40, 90), _looker(19, 90), HALF) == (Loss("users_by_id", 40, 19),)
    assert losses(_looker(40, 90), _looker(20, 90), HALF) == ()


def test_the_few_of_a_small_collection_may_go() -> None:
    assert losses(_looker(4, 90), _looker(0, 90), HALF) == ()
    assert losses(_looker(19, 90), _looker(1, 90), HALF) == ()


def test_what_a_set_holds_counts_for_the_name_of_the_set() -> None:
    before = {"datasets": [{"columns": {"__set__": ["id", "amount"]}} for _ in range(9)]}
    now = {"datasets": [{"columns": {"__set__": []}} for _ in range(9)]}
    assert losses(before, now, HALF) == (Loss("columns", 18, 0),)


def test_the_top_is_counted_separately_where_a_name_means_two_things() -> None:
    books = [{"datasets": [number]} for number in range(12)]
    before = {"datasets": list(range(12)), "books": books}
    assert losses(before, {"datasets": [], "books": books}, HALF) == (Loss(".datasets", 12, 0),)


def test_a_thing_that_was_removed_takes_its_own_names_along() -> None:
    before = {"books": {f"id-{number}": dict.fromkeys("abcdefgh", 1) for number in range(40)}}
    now = {"books": {f"id-{number}": dict.fromkeys("abcdefgh", 1) for number in range(1, 40)}}
    assert losses(before, now, HALF) == ()


def test_without_a_share_nothing_is_compared() -> None:
    assert losses(_looker(40, 90), _looker(0, 0), 0.0) == ()


@given(DOCUMENTS)
def test_a_document_has_lost_nothing_of_itself_nor_of_what_is_smaller(document: Any) -> None:
    assert losses(document, document, 1.0) == ()
    assert losses({"a": document}, {"a": document, "z": [document]}, 1.0) == ()


@given(DOCUMENTS)
def test_json_in_a_string_is_counted_as_what_it_says(document: Any) -> None:
    wrapped = {"inside": json.dumps(document)} if isinstance(document, (dict, list)) else {}
    plain = {"inside": document} if isinstance(document, (dict, list)) else {}
    assert census(wrapped) == census(plain)
