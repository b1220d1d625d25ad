"""What `bundler.dagster_health` adds to a load of a code location.

    python benchmarks/health.py [STATES]

In a process that has imported dagster, as a code server has: the import of the module and
`state_health` on a state directory, then, for comparison, `import dagster`. The least of several
processes counts. Aim: less than 50 ms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundler.state.statedir import StateDir
from tests.support.environments import ROOT, python_of
from tests.support.statedirs import NOTHING_FETCHED, fill

_RUNS = 5
_PLACE = "shop/defs/.local_defs_state"
_LOAD = """
import sys, time
began = time.process_time()
import dagster
dagster_took, began = time.process_time() - began, time.process_time()
from pathlib import Path
from bundler.dagster_health import state_health
health = state_health(Path(sys.argv[1]), max_age="24h")
took = time.process_time() - began
print(dagster_took, took, len(list(health.assets)))
"""


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        states = {f"Feed[{number}]": {"state": "[1]"} for number in range(count)}
        with StateDir(Path(name) / _PLACE, _PLACE).staging() as staging:
            staging.publish(fill(staging, states), (), NOTHING_FETCHED)
        argv = [python_of("store"), "-c", _LOAD, name]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = []
        for _ in range(_RUNS):
            done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True)
            dagster, health, assets = done.stdout.split()
            assert int(assets) == count
            found.append((float(health), float(dagster)))
    health, dagster = (min(times) * 1000 for times in zip(*found, strict=True))
    report = {
        "states": count,
        "import and state_health, ms": round(health, 1),
        "import dagster, ms": round(dagster, 1),
        "load average": round(os.getloadavg()[0], 1),
    }
    sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10)
