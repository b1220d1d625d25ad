"""What each command says in the root of a repository that it has never seen.

``python -m tests.campaigns.first_contact --record FILE`` runs the commands in a checkout of each
shape (``tests/support/shapes.py``). ``--write BEFORE AFTER`` makes the table of
``docs/evidence/first-contact.md`` of two records.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.environments import ROOT
from tests.support.shapes import ALL, checkout
from tests.support.workdir import WorkDir

_PAGE = ROOT / "docs/evidence/first-contact.md"
_BEGIN, _END = "<!-- made by make first-contact -->", "<!-- end -->"
# In this order: what only looks comes first.
COMMANDS = (
    "doctor",
    "doctor --matrix",
    "guard",
    "status",
    "init --yes",
    "refresh --all",
    "build oci --all -o build/image",
)
# Not the name of a check of doctor's that has failed, which is a heading.
_SAYS = re.compile(r"^\s*(?:(?:✗|x) .*[.:]|error|Error|Usage|Invalid)")
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+")
_LENGTH = 110


def run(wd: WorkDir, command: str) -> dict[str, Any]:
    """The exit code, the seconds of CPU, and the lines of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = str(Path(sys.executable).with_name("state-bundler"))
    done = subprocess.run(
        [program, *command.split()],
        cwd=wd.path,
        env={k: v for k, v in wd.env.items() if k not in ("VIRTUAL_ENV", "GITHUB_OUTPUT")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line.replace(str(wd.path), ".") for line in done.stdout.splitlines() if line.strip()]
    return {"code": done.returncode, "cpu": round(cpu, 1), "lines": lines}


def record(file: Path) -> None:
    made: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ALL:
            wd = checkout(name, Path(folder, name))
            made[name] = {command: run(wd, command) for command in COMMANDS}
            print(name, [answer["code"] for answer in made[name].values()], file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made, indent=1))


def _cell(answer: dict[str, Any] | None) -> str:
    """The first failure, or else the last line: where a command says what came of it.

    A shape that was not there yet has a dash.
    """
    if answer is None:
        return "-"
    lines = answer["lines"] or ["(nothing)"]
    line = (
        next((line for line in lines if _SAYS.match(line)), lines[-1]).strip().replace("|", "\\|")
    )
    line = _FOLDERS.sub("…/", line)  # of the machine that it ran on
    shown = line if len(line) <= _LENGTH else f"{line[:_LENGTH]}…"
    return f"{answer['code']} · {answer['cpu']} s · {len(answer['lines'])} lines: {shown}"


def write(before: Path, after: Path) -> None:
    first, now = (json.loads(path.read_text()) for path in (before, after))
    rows = []
    for name in now:
        rows += [f"### `{name}`", "", "| command | before | now |", "|---|---|---|"]
        for command in COMMANDS:
            cells = (_cell(answers.get(name, {}).get(command)) for answers in (first, now))
            rows.append(f"| `{command}` | {' | '.join(cells)} |")
        rows.append("")
    head, _, rest = _PAGE.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _PAGE.write_text("\n".join([head + _BEGIN, "", *rows, _END + tail]))


def main() -> None:
    option, *files = sys.argv[1:]
    os.environ.pop("VIRTUAL_ENV", None)
    if option == "--record":
        record(Path(files[0]))
    else:
        write(Path(files[0]), Path(files[1]))


if __name__ == "__main__":
    main()
