"""Facts about each vendor's component, such as failed requests that are normal.

A connector of Fivetran that has never been synced has no schemas: 404. So has one whose schemas
were lost, but that one is in the last state. Only the first case is normal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bundler.refresh.model import Component
from bundler.refresh.outcome.exchanges import Exchange, is_expected
from bundler.refresh.scanning import windows
from bundler.state.volatile import (
    DBT_CLOUD_MEMBERS,
    DBT_FILES,
    DBT_MEMBERS,
    FIVETRAN_MEMBERS,
)
from bundler.system.wording import counted


class Expected(msgspec.Struct, frozen=True):
    """pattern: ``METHOD HOST/PATH STATUS`` as in ``allow-http``. why: the meaning of such an
    answer."""

    pattern: str
    why: str


class Kind(msgspec.Struct, frozen=True):
    """Facts about a kind of component: by a class name, or its prefix and a star.

    volatile: names of JSON members, ignored: patterns of files, that change at every run without a
    change in meaning. writable: paths that the program writes to at run time. jobs: how many
    concurrent requests its vendor tolerates, None for no limit. runs_dbt: whether it runs dbt,
    which writes the path of its directory into its files. is_dbt_cloud: whether its file contains
    the manifest of a project in dbt Cloud, where dbt runs. expected: failed requests that are
    normal. whole_pages: whether its library is supposed to request every page of a list.
    """

    pattern: str
    volatile: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    jobs: int | None = None
    runs_dbt: bool = False
    is_dbt_cloud: bool = False
    expected: tuple[Expected, ...] = ()
    whole_pages: bool = True

    def covers(self, name: str) -> bool:
        """Without `fnmatch`, which would compile each of the patterns for a single use."""
        beginning, star, _ = self.pattern.partition("*")
        return name.startswith(beginning) if star else name == beginning


KINDS = (
    Kind("dagster_dbt.cloud*", volatile=DBT_CLOUD_MEMBERS, jobs=4, is_dbt_cloud=True),
    Kind(
        "dagster_dbt.*",
        volatile=DBT_MEMBERS,
        ignored=DBT_FILES,
        writable=("project/target", "project/*/target"),
        runs_dbt=True,
    ),
    Kind("command:dbt", volatile=DBT_MEMBERS, ignored=DBT_FILES),
    Kind(
        "dagster_fivetran.*",
        volatile=FIVETRAN_MEMBERS,
        jobs=4,
        expected=(
            Expected(
                "GET api.fivetran.com/v1/connectors/*/schemas 404",
                "a connector that was never synced has no schemas yet, and no assets",
            ),
            Expected(
                "GET api.fivetran.com/v1/connectors/*/schemas skipped",
                "a connector without schemas in the response has no assets",
            ),
        ),
    ),
    Kind("dagster_airbyte.*", jobs=4),
    Kind("dagster_tableau.*", jobs=4),
    Kind("dagster_looker.*", jobs=4),
    Kind(
        "dagster_sigma.*",
        jobs=4,
        # Only applies with `warn_on_lineage_fetch_error`; otherwise the library fails. Earlier
        # lineage has no id to recognise it by; a large loss is noticed as a lost collection.
        expected=tuple(
            Expected(
                f"GET */workbooks/*/lineage/elements/* {status}",
                "some kinds of elements have no lineage, which the component ignores",
            )
            for status in (400, 404)
        ),
    ),
    Kind("dagster_powerbi.*", jobs=4),
    # Other integrations of Dagster by name: many a project's own package begins with dagster_, too.
    *(Kind(f"dagster_{vendor}.*") for vendor in ("census", "databricks", "omni")),
)


_UNKNOWN = Kind("*", whole_pages=False)


def kind_of(component: Component) -> Kind:
    """The facts about a component's class, or the nearest class that it inherits from."""
    found = (kind for name in component.kinds for kind in KINDS if kind.covers(name))
    return next(found, _UNKNOWN)


def notes(
    exchanges: Sequence[Exchange], normal: Sequence[Expected], allowed: Sequence[str]
) -> Iterator[str]:
    """A message for each default that was applied. allowed: the project's own, which are not
    reported."""
    for expected in normal:
        count = len(_of(expected, exchanges, allowed))
        if count:
            yield f"{counted(count, 'time')} {expected.pattern}: {expected.why}"


def lost(
    exchanges: Sequence[Exchange],
    normal: Sequence[Expected],
    allowed: Sequence[str],
    before: Path,
) -> Exchange | None:
    """The first of them that concerns something in the previous state.

    before: that state's file. allowed: what the project itself expects, whatever it concerns.
    Raises `OSError`.
    """
    about = {
        f'"{name}"'.encode(): exchange
        for expected in normal
        for exchange in _of(expected, exchanges, allowed)
        for name in _names(expected, exchange)
    }
    if not about or not before.is_file():
        return None
    with open(before, "rb") as stream:
        for _, window in windows(stream, max(map(len, about))):
            for name, exchange in about.items():
                if name in window:
                    return exchange
    return None


def _of(
    expected: Expected, exchanges: Sequence[Exchange], allowed: Sequence[str]
) -> list[Exchange]:
    return [
        exchange
        for exchange in exchanges
        if is_expected(exchange, [expected.pattern]) and not is_expected(exchange, allowed)
    ]


def _names(expected: Expected, exchange: Exchange) -> tuple[str, ...]:
    """What the stars of the pattern match in a request's path."""
    where = expected.pattern.split(" ")[1]
    path = "/" + where.partition("/")[2]
    found = re.fullmatch(re.escape(path).replace(r"\*", "(.*)"), urlsplit(exchange.url).path)
    return found.groups() if found else ()
