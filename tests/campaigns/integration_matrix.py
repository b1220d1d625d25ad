"""Every vendor, every endpoint, every fault: with the unmodified libraries against their stand-ins.

``python -m tests.campaigns.integration_matrix [VENDOR…]`` (``make integrations``) runs everything,
most of an hour, and writes the table of ``docs/evidence/integrations.md``; the tests run a part.
With ``--engine`` a Docker engine is started where none answers, and an image is built and loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path

from tests.support.environments import ROOT, python_of
from tests.support.integrations.airbyte import Airbyte, AirbyteCloud
from tests.support.integrations.dbtcloud import DbtCloud
from tests.support.integrations.dbtgit import GitServer
from tests.support.integrations.fivetran import Fivetran
from tests.support.integrations.looker import Looker
from tests.support.integrations.powerbi import PowerBI
from tests.support.integrations.running import Account, Verdict, cases_of, make_account, try_faults
from tests.support.integrations.sigma import Sigma
from tests.support.integrations.standin import SUBCLASSES, Case, Fault, StandIn
from tests.support.integrations.tableau import Tableau
from tests.support.integrations.ways import WAYS, through_engine

VENDORS: tuple[type[StandIn], ...] = (
    *(Tableau, Looker, Sigma, PowerBI),
    *(Fivetran, AirbyteCloud, Airbyte, GitServer, DbtCloud),
)
# How many of everything the good account has. Sigma's library makes 17 requests a workbook,
# concurrently.
SIZES = {"sigma": 60}
_SIZE = 300
_FAULTY_SIZE = 12
_TIMEOUT_SECONDS = 30.0
_PAGE = ROOT / "docs/evidence/integrations.md"
_RESULTS = ROOT / "build" / "integrations"
_BEGIN, _END = "<!-- made by make integrations -->", "<!-- end -->"


@dataclass
class Result:
    """What a vendor's run came to. ways: how its state was shipped and loaded. wrong: messages."""

    vendor: str
    integration: str
    dagster: str
    requests: int = 0
    assets: int = 0
    endpoints: list[str] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)
    faults: int = 0
    passed: int = 0
    wrong: list[str] = field(default_factory=list)


def run(
    vendor: type[StandIn], folder: Path, engine: Callable[[Account, Path], set[str]] | None
) -> Result:
    """The whole of one vendor."""
    result = Result(
        _title(vendor), _version(vendor, vendor.integration), _version(vendor, "dagster")
    )
    _whole_way(vendor, folder, result, engine)
    faults = [*vendor.faults(), *_of_subclasses(vendor.faults())]
    with vendor(*cases_of(faults, _FAULTY_SIZE)) as standin:
        account = make_account(standin, folder / "faulty", timeout=_TIMEOUT_SECONDS)
        verdicts = try_faults(account, faults)
        called = {*result.endpoints, *standin.called()}
    result.endpoints = [one.name for one in vendor.endpoints if one.name in called]
    result.faults = len(verdicts)
    result.passed = sum(not verdict.wrong for verdict in verdicts)
    result.wrong += [_told(verdict) for verdict in verdicts if verdict.wrong]
    result.wrong += _different(verdicts)
    return result


def _of_subclasses(faults: Sequence[Fault]) -> list[Fault]:
    """The same of a project's own classes, of each kind in turn."""
    return [replace(one, subclass=kind) for one, kind in zip(faults, cycle(SUBCLASSES))]


def _different(verdicts: Sequence[Verdict]) -> list[str]:
    """Where a subclass came to another exit code than the vendor's class."""
    codes = {verdict.fault: verdict.code for verdict in verdicts}
    return [
        f"{fault}: exit code {code} instead of {codes[replace(fault, subclass='')]}"
        for fault, code in codes.items()
        if code != codes[replace(fault, subclass="")]
    ]


def _whole_way(
    vendor: type[StandIn],
    folder: Path,
    result: Result,
    engine: Callable[[Account, Path], set[str]] | None,
) -> None:
    """A large account: refreshed, loaded, and shipped in every way."""
    case = Case("acme", size=SIZES.get(vendor.name, _SIZE))
    ways = {**WAYS, **({"image": engine} if engine else {})}
    with vendor(case) as standin:
        account = make_account(standin, folder / "whole", timeout=300)
        failures = account.refresh()
        result.wrong += [failure.what for failure in failures.values()]
        called = standin.called()
        result.requests, result.endpoints = sum(called.values()), list(called)
        result.wrong += [f"unknown: {request}" for request in standin.unknown]
        strangers = () if standin.asks_others else sorted(standin.strangers)
        result.wrong += [f"asked a stranger: {host}" for host in strangers]
        expected = standin.assets(case)
        result.assets = len(expected)
        for name, way in ways.items():
            place = folder / name
            place.mkdir()
            missing = expected - way(account, place)
            result.ways.append(name)
            result.wrong += [f"{name}: {len(missing)} assets are missing"] if missing else []


def _told(verdict: Verdict) -> str:
    return f"{verdict.fault}: {verdict.wrong}. {verdict.what}"


def _title(vendor: type[StandIn]) -> str:
    return vendor.title or vendor.name.capitalize()


def _version(vendor: type[StandIn], package: str) -> str:
    script = f"import importlib.metadata as m; print(m.version({package!r}))"
    python = python_of(vendor.requirements or f"integration-{vendor.name}")
    return subprocess.check_output([python, "-c", script], text=True).strip()


# --- the page -----------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """The table of the page, one line a vendor."""
    lines = [
        "| vendor | library | Dagster | endpoints | requests | assets | shipped in | faults seen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        cells = (
            one.vendor,
            one.integration,
            one.dagster,
            f"{len(one.endpoints)}: {', '.join(one.endpoints)}",
            str(one.requests),
            str(one.assets),
            ", ".join(one.ways),
            f"{one.passed} of {one.faults}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(results: Sequence[Result]) -> None:
    """Puts the table into the page; the words around it stay."""
    head, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    _PAGE.write_text(f"{head}{_BEGIN}\n\n{table(results)}\n\n{_END}{tail}")


def _remembered() -> list[Result]:
    """The last result of every vendor, also of those that were not run now."""
    results = [Result(**json.loads(path.read_text())) for path in _RESULTS.glob("*.json")]
    found = {result.vendor: result for result in results}
    return [found[_title(vendor)] for vendor in VENDORS if _title(vendor) in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vendors", nargs="*", metavar="VENDOR")
    parser.add_argument("--engine", action="store_true", help="build and load an image, too")
    arguments = parser.parse_args()
    chosen = [one for one in VENDORS if not arguments.vendors or one.name in arguments.vendors]
    wrong = 0
    _RESULTS.mkdir(parents=True, exist_ok=True)
    for vendor in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"{vendor.name}-") as folder:
            result = _run_with(vendor, Path(folder), engine=arguments.engine)
        (_RESULTS / f"{_title(vendor)}.json").write_text(json.dumps(asdict(result)))
        write_page(_remembered())
        seconds = time.monotonic() - began
        print(f"{_title(vendor)}: {result.passed} of {result.faults} faults, {seconds:.0f} s")
        for sentence in result.wrong:
            print(f"  {sentence}")
        wrong += len(result.wrong)
    return 1 if wrong else 0


def _run_with(vendor: type[StandIn], folder: Path, *, engine: bool) -> Result:
    if not engine:
        return run(vendor, folder, None)
    from tests.support.engine import make_python_base, running_engine

    with running_engine() as reached:
        base = make_python_base(reached)
        try:
            return run(
                vendor,
                folder,
                lambda account, place: through_engine(account, place, reached.environment, base),
            )
        finally:
            reached.remove_made()


if __name__ == "__main__":
    sys.exit(main())
