"""What a component's state is made of: components with one key must agree on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from bundler.worker.dagster_worker import _made_of, _texts


class Credentials(NamedTuple):
    """As dagster-dbt keeps those of dbt Cloud, in a workspace."""

    token: str
    access_url: str


@dataclass
class Workspace:
    credentials: Credentials
    project_id: int = 1


@dataclass
class Cloud:
    workspace: Workspace
    select: str = "fqn:*"
    cli_args: tuple[str, ...] = ()


def cloud(url: str = "https://a", **more: Any) -> Cloud:
    return Cloud(Workspace(Credentials("the-token", url)), **more)


def test_a_named_tuple_is_compared_by_its_fields() -> None:
    assert _made_of(cloud()) == _made_of(cloud())
    assert _made_of(cloud()) != _made_of(cloud("https://b"))


def test_what_only_shapes_the_definitions_is_left_out() -> None:
    assert _made_of(cloud()) == _made_of(cloud(select="tag:x", cli_args=("run",)))


def test_the_texts_of_a_named_tuple_are_found() -> None:
    assert {"the-token", "https://a"} <= set(_texts(vars(cloud()), 4))
