"""Every answer, good or bad, fetched by every HTTP client in every way: minutes.

``python -m tests.campaigns.body_matrix`` (``make bodies``) runs everything and writes the table of
``docs/evidence/answers.md``; the tests run a thinned part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bundler.errors import BundlerError
from tests.support.answers import ANSWERS, GOOD
from tests.support.bodies import CLIENTS, WAYS, Cell, all_cells, refresh_cells, served, thinned
from tests.support.environments import ROOT

_PAGE = ROOT / "docs/evidence/answers.md"
_BEGIN, _END = "<!-- made by make bodies -->", "<!-- end -->"
Outcome = Mapping[Cell, BundlerError | None]


def table(outcome: Outcome) -> str:
    """Markdown: by answer, by client, by way."""
    lines = [
        "| answer | exit code | tried | right | wrong | taken for a state |",
        "|---|---|---|---|---|---|",
    ]
    for name in ANSWERS:
        code = "0" if name in GOOD else str(ANSWERS[name].code)
        lines.append(
            _row(f"`{name}` | {code}", outcome, lambda cell, name=name: cell.answer == name)
        )  # type: ignore[misc]  # bound immediately
    lines += [
        "",
        "| client | | tried | right | wrong | taken for a state |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        _row(f"{one} | ", outcome, lambda cell, one=one: cell.client == one) for one in CLIENTS
    ]  # type: ignore[misc]
    lines += [_row(f"{one} | ", outcome, lambda cell, one=one: cell.way == one) for one in WAYS]  # type: ignore[misc]
    lines.append(_row("**all** | ", outcome, lambda _: True))
    return "\n".join(lines)


def _row(title: str, outcome: Outcome, of: Callable[[Cell], bool]) -> str:
    cells = [cell for cell in outcome if of(cell)]
    wrong = wrong_of({cell: outcome[cell] for cell in cells})
    silent = sum(bool(cell.expected) and outcome[cell] is None for cell in cells)
    return f"| {title} | {len(cells)} | {len(cells) - len(wrong)} | {len(wrong)} | {silent} |"


def wrong_of(outcome: Outcome) -> list[str]:
    """What came out otherwise than it was to."""
    return [
        f"{cell.key}: {failure.exit_code if failure else 0} instead of {cell.expected}. "
        f"{failure.what if failure else ''}"
        for cell, failure in outcome.items()
        if (failure.exit_code if failure else 0) != cell.expected
    ]


def _write(text: str) -> None:
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    _PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}")


def main(given: Iterable[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=int, default=1, help="try one cell in so many")
    options = parser.parse_args([*given])
    cells = all_cells() if options.share == 1 else thinned(options.share)
    with served() as ports, tempfile.TemporaryDirectory() as folder:
        outcome = refresh_cells(cells, Path(folder) / "project", ports)
    print(*wrong_of(outcome), sep="\n")
    if options.share == 1:
        _write(table(outcome))
    sys.exit(bool(wrong_of(outcome)))


if __name__ == "__main__":
    main(sys.argv[1:])
