"""What came of a fault campaign, and the table of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_BEGIN, _END = "<!-- begin: {}, written by make faults -->", "<!-- end -->"


@dataclass
class Tally:
    """What came of one kind of fault on one file system."""

    points: int = 0
    missed: int = 0
    sets: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.points += other.points
        self.missed += other.missed
        self.sets += other.sets
        self.codes += other.codes
        self.problems += other.problems


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """The report as a table in Markdown."""
    words = "fault on points old_set new_set interrupted refreshed exit_codes missed problems"
    titles = [title.replace("_", " ") for title in words.split()]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for (where, kind), tally in tallies.items():
        codes = ", ".join(
            f"{'killed' if code < 0 else code} ({count})"
            for code, count in sorted(tally.codes.items())
        )
        lines.append(
            f"| {kind} | {where} | {tally.points} | {tally.sets['old']} | {tally.sets['new']} "
            f"| {tally.sets['interrupted']} | {tally.sets['brought']} | {codes} | {tally.missed} "
            f"| {len(tally.problems)} |"
        )
    total = sum(tally.points for tally in tallies.values())
    problems = sum(len(tally.problems) for tally in tallies.values())
    lines.append(f"| **all** | | **{total}** | | | | | | | **{problems}** |")
    return "\n".join(lines)


def write_report(file: Path, text: str, of: str = "states") -> None:
    """Puts the table between the marks. of: what was broken."""
    begin = _BEGIN.format(of)
    before, _, rest = file.read_text().partition(begin)
    file.write_text(f"{before}{begin}\n{text}\n{_END}{rest.partition(_END)[2]}")
