"""The text of the comment that a plan is posted as."""

from __future__ import annotations

from typing import Any

import pytest

from bundler.hooks.plan_comment import text_of

_NOTHING = "A refresh would change nothing."


def _plan(markdown: str, **more: Any) -> dict[str, Any]:
    plan = {"changes": False, "notRefreshed": [], "baselines": [{"refused": []}]}
    return {**plan, "markdown": markdown, **more}


@pytest.mark.parametrize(
    ("more", "is_shown"),
    [
        ({}, False),
        ({"notRefreshed": [{"key": "K"}]}, True),
        ({"baselines": [{"refused": []}, {"refused": ["K has shrunk."]}]}, True),
    ],
)
def test_no_change_is_not_the_whole_answer_if_more_is_known(
    more: dict[str, Any], is_shown: bool
) -> None:
    text = text_of(_plan("the plan", **more))
    assert _NOTHING in text
    assert ("the plan" in text) is is_shown


@pytest.mark.parametrize("most", range(0, 245, 5))
def test_a_long_plan_is_cut_where_nothing_stays_open(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.hooks.plan_comment._MOST_TEXT", most)
    block = (
        "<details><summary>assets</summary>\n\n````diff\n+ <details>\n+ b\n````\n\n</details>\n\n"
    )
    text = text_of(_plan(f"### Compared\n\n{block * 3}end", changes=True))
    lines = text.split("\n")
    assert lines[-1].startswith("… The rest")
    assert sum(line.startswith("````") for line in lines) % 2 == 0
    assert sum(it.startswith("<details>") for it in lines) == lines.count("</details>")
