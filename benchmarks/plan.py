"""What a plan's two loads cost next to two plain loads of the same code location, and their memory.

    python benchmarks/plan.py [ASSETS] [--only hand-written,fivetran,dbt] [--runs 3]

Three kinds of components with as many assets each: the hand-written one of the tests, and the
unmodified ones of Fivetran and dbt, whose states their own refresh has written from a stand-in of
the API and from a dbt project of as many models. A plain load is what a code server does: import
the module, make the definitions and the repository. Each load is its own process; of several
runs the shortest counts, in processor time. Memory is that of the largest process of each way.
Aim: at most 1.3 times the two plain loads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundler.project.projects import open_project
from bundler.refresh.definitions import describe_with
from tests.support.environments import ROOT, python_of
from tests.support.integrations.fivetran import Fivetran
from tests.support.integrations.running import make_account
from tests.support.integrations.standin import Case
from tests.support.planned import KEY, key_directory, make, python

# As a production server loads, with a state from the path that is given.
_PLAIN = """
import importlib, os, sys
from pathlib import Path
import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext, DefinitionsLoadType,
)
DefinitionsLoadContext.set(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION))
sys.path[:0] = [os.getcwd(), "src"]
state = Path(sys.argv[2])
dg.StateBackedComponent.build_defs = (
    lambda self, context: self.build_defs_from_state(context, state)
)
repository = importlib.import_module(sys.argv[1]).defs().get_repository_def()
repository.load_all_definitions()
print(len(repository.asset_graph.get_all_asset_keys()))
"""


class Subject(msgspec.Struct, frozen=True):
    """A project with the states of one key. module: what a code server loads."""

    root: Path
    python: Path
    module: str
    key: str
    states: list[Path]


# --- the three kinds ----------------------------------------------------------------------------


def _hand_written(folder: Path, assets: int) -> Subject:
    names = [f"asset_{number}" for number in range(assets)]
    made = {
        name: {"deps": names[number - 1 : number], "group": "shop", "version": str(number)}
        for number, name in enumerate(names)
    }
    state = {"assets": made, "jobs": {"nightly": names[:10]}, "schedules": {"nightly": "0 1 * * *"}}
    states = [key_directory(folder / name, state) for name in ("before", "after")]
    return Subject(make(folder), python(), "planned.definitions", KEY, states)


def _fivetran(folder: Path, assets: int) -> Subject:
    case = Case("good", size=assets // 3 * 10 // 9)  # three tables each; a tenth is not set up
    with Fivetran(case) as standin:
        account = make_account(standin, folder / "project", timeout=600)
        failures = account.refresh()
    assert not failures, failures
    os.environ.update(standin.variables)
    states = [account.state(case).parent] * 2
    return Subject(account.root, account.python, "warehouse.definitions", standin.key(case), states)


def _dbt(folder: Path, assets: int) -> Subject:
    root = folder / "project"
    shutil.copytree(ROOT / "tests/projects/integration_dbt", root)
    models = root / "orders/models/many"
    models.mkdir()
    for number in range(assets - 5):
        source = f"model_{number - 1}" if number % 10 else "stg_orders"
        (models / f"model_{number}.sql").write_text(f"select * from {{{{ ref('{source}') }}}}")
    argv = [sys.executable, "-m", "bundler", "refresh", "--quiet", "--timeout", "10m"]
    argv += ["--project", str(root), "--python", str(python_of("dagster"))]
    subprocess.run(argv, check=True, capture_output=True)
    states = [root / "warehouse/defs/.local_defs_state/DbtProjectComponent__orders__"] * 2
    key = "DbtProjectComponent[orders]"
    return Subject(root, python_of("dagster"), "warehouse.definitions", key, states)


KINDS = {"hand-written": _hand_written, "fivetran": _fivetran, "dbt": _dbt}


# --- measuring ----------------------------------------------------------------------------------


class Spent(msgspec.Struct, frozen=True):
    """Of two loads: processor seconds, the memory of the largest process in MiB, the assets."""

    seconds: float
    memory: int
    assets: int


def _measure(way: str, subject: Subject) -> Spent:
    """In its own process, since the largest child is only known of all children together."""
    argv = [sys.executable, __file__, "--way", way]
    raw = msgspec.json.encode(subject, enc_hook=str)
    done = subprocess.run(argv, input=raw, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return msgspec.json.decode(done.stdout, type=Spent)


def _spend(way: str, subject: Subject) -> Spent:
    if way == "plain":
        assets = [_load(subject, state) for state in subject.states]
    else:
        project = open_project(subject.root, python=subject.python)
        found = describe_with(project, [{subject.key: state} for state in subject.states])
        assert not any(it.error for it in found), found[0].error
        assets = [len(it.assets) for it in found]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, min(assets))


def _load(subject: Subject, state: Path) -> int:
    argv = [subject.python, "-c", _PLAIN, subject.module, state / "state"]
    done = subprocess.run(argv, cwd=subject.root, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", type=int, nargs="?", default=1000)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        subject = msgspec.json.decode(
            sys.stdin.buffer.read(), type=Subject, dec_hook=lambda kind, text: kind(text)
        )
        sys.stdout.write(msgspec.json.encode(_spend(options.way, subject)).decode())
        return
    for kind in options.only.split(","):
        with tempfile.TemporaryDirectory() as name:
            subject = KINDS[kind](Path(name), options.assets)
            runs: dict[str, list[Spent]] = {"plain": [], "plan": []}
            for _ in range(options.runs):
                for way, spent in runs.items():
                    spent.append(_measure(way, subject))
        plain, plan = (min(it.seconds for it in spent) for spent in runs.values())
        report = {
            "kind": kind,
            "assets": runs["plan"][0].assets,
            "two plain loads": round(plain, 2),
            "two loads of a plan": round(plan, 2),
            "ratio": round(plan / plain, 2),
            "MiB": {way: max(it.memory for it in spent) for way, spent in runs.items()},
            "load average": round(os.getloadavg()[0], 1),
        }
        sys.stdout.write(f"{json.dumps(report)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
