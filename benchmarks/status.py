"""What ``status`` of an unchanged Dagster project costs, with and without the discovery cache.

    python benchmarks/status.py [RUNS]

CPU of whole processes and all that they start, as multiples of an empty interpreter's in the same
run; the least of several runs counts. All of Dagster's integrations are installed.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.environments import ROOT, python_of


def cpu(argv: list[str], runs: int, cwd: Path, environment: dict[str, str]) -> float:
    """The least CPU seconds of a process and its children."""
    found = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, cwd=cwd, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main(runs: int) -> None:
    """Makes the project, loads it once, and measures."""
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "tiny"
        shutil.copytree(ROOT / "tests/projects/refresh_dagster", project)
        environment = {
            **os.environ, "XDG_CACHE_HOME": name, "TINY_NAME": "primes", "TINY_NUMBERS": "2 3 5",
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "DG_PROJECT_PYTHON_EXECUTABLE": str(python_of("dagster")),
        }  # fmt: skip
        status = [sys.executable, "-m", "bundler", "status"]
        environment["PYTHONPATH"] = str(ROOT)
        time.sleep(2.1)  # younger files are not trusted
        rows = {
            "empty interpreter": ([sys.executable, "-c", "pass"], 5 * runs),
            "import click": ([sys.executable, "-c", "import click"], 2 * runs),
            "import dagster": (
                [environment["DG_PROJECT_PYTHON_EXECUTABLE"], "-c", "import dagster"],
                runs,
            ),
            "status --no-cache": ([*status, "--no-cache"], runs),
            "status, the first time": (status, 1),
            "status, unchanged": (status, 2 * runs),
        }
        base = 0.0
        for what, (argv, count) in rows.items():
            seconds = cpu(argv, count, project, environment)
            base = base or seconds
            print(f"{what}: {1000 * seconds:.0f} ms, {seconds / base:.1f} times")
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
