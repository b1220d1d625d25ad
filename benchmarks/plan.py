"""What a plan's two loads cost next to two plain loads of the same code location, and their memory.

    python benchmarks/plan.py [ASSETS]

A plain load is what a code server does: import the module, make the definitions and the repository.
Each is a process of its own; the shortest of several runs counts. Processor time, not the clock's.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundler.project.projects import open_project
from bundler.refresh.definitions import describe_with
from tests.support.planned import KEY, key_directory, make, python

_RUNS = 3
_PLAIN = """
import json, sys
from pathlib import Path
sys.path.insert(0, "src")
from planned.feed import Feed
Feed.build_defs = lambda self, context: self.build_defs_from_state(context, Path(sys.argv[1]))
from planned.definitions import defs
repository = defs().get_repository_def()
repository.load_all_definitions()
print(len(repository.asset_graph.get_all_asset_keys()))
"""


def _state(assets: int) -> dict[str, object]:
    names = [f"asset_{number}" for number in range(assets)]
    made = {
        name: {"deps": names[number - 1 : number], "group": "shop", "version": str(number)}
        for number, name in enumerate(names)
    }
    return {"assets": made, "jobs": {"nightly": names[:10]}, "schedules": {"nightly": "0 1 * * *"}}


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(assets: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = make(folder)
        project = open_project(root, python=python())
        states = [key_directory(folder / n, _state(assets)) for n in ("before", "after")]
        plain, described = [], []
        for _ in range(_RUNS):
            began = _spent()
            for state in states:
                argv = [python(), "-c", _PLAIN, state / "state"]
                subprocess.run(argv, cwd=root, check=True, capture_output=True)
            plain.append(_spent() - began)
            began = _spent()
            before, after = describe_with(project, [{KEY: state} for state in states])
            described.append(_spent() - began)
            assert len(before.assets) == len(after.assets) == assets
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    result = {
        "assets": assets,
        "two plain loads": round(min(plain), 2),
        "two described loads": round(min(described), 2),
        "ratio": round(min(described) / min(plain), 2),
        "largest process, MiB": memory,
        "processors": os.cpu_count(),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
