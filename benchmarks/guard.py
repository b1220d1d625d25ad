"""How long the guard takes, next to what it cannot do without and what others take.

    python benchmarks/guard.py [--sizes 1000,100000,1000000] [--commits 10000,100000] [--keep DIR]
                               [--before PROGRAM]

With ``--before`` another installation's state-guard takes its turns, too, and the last column has
what this one took of its time.

Whole processes, as a hook runs them; wall time and CPU time of the process and its children. The
candidates take turns, every other round in the opposite order, so that a busy machine is busy for
all of them. Ratios and aims go by CPU time, which a busy machine changes least; it gives the guard
no credit for asking git side by side. A ratio is the median over the rounds of what the candidate
took to what the floor took in the same round; the middle half of the rounds is next to it.

The floor of a moment is an empty interpreter and the git commands that answer it, one by one.
Before a build these are: which repository, its entries, where HEAD differs, which rule ignores the
state, whether a copy of it was ever added, and what ``git add -A`` would find on disk. The guard
asks the first five itself; for the last it looks through the work tree without git.

Rows: ``floor``, ``state-guard`` at that moment, ``shell`` (a three-line hook with the same git
commands), ``large files`` (pre-commit-hooks' check-added-large-files, where it is installed).
``git commit`` is measured with and without the hook. Repositories are made by fast-import and
``update-index --index-info``: a million entries, not a million files. No work tree is walked here
but that of the first two sizes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

GUARD = str(Path(sys.executable).with_name("state-guard"))
LARGE_FILES = shutil.which("check-added-large-files", path=str(Path(sys.executable).parent))
STATE = "src/shop/defs/.local_defs_state"
PYPROJECT = '[project]\nname = "shop"\nversion = "1"\n\n[tool.dg.project]\nroot_module = "shop"\n'
AIM_RATIO = 1.5
AIM_COMMIT_MS = 50
AIM_HISTORY = 1.2


@dataclass(frozen=True)
class Time:
    """Milliseconds, wall and CPU, of every round."""

    walls: tuple[float, ...]
    cpus: tuple[float, ...]

    @property
    def wall(self) -> float:
        return min(self.walls)

    @property
    def cpu(self) -> float:
        return min(self.cpus)

    def of(self, floor: Time) -> list[float]:
        """What it took to what the floor took in the same round, from the least to the most."""
        return sorted(mine / least for mine, least in zip(self.cpus, floor.cpus, strict=True))


def together(times: Sequence[Time]) -> Time:
    """One after another: the sums, round by round."""
    walls = zip(*(each.walls for each in times), strict=True)
    cpus = zip(*(each.cpus for each in times), strict=True)
    return Time(tuple(map(sum, walls)), tuple(map(sum, cpus)))


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # a hook runs from compiled modules
    return {
        **kept,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "C",
        "GIT_COMMITTER_EMAIL": "c@example.com",
        "LC_ALL": "C",
    }


def git(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    argv = ["git", "-C", str(root), *arguments]
    done = subprocess.run(argv, input=stdin, env=environment(), check=True, capture_output=True)
    return done.stdout


def once(argv: Sequence[str], root: Path) -> tuple[float, float]:
    """Wall and CPU milliseconds of one run, children included."""
    start = time.perf_counter()
    with subprocess.Popen(
        argv,
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = (time.perf_counter() - start) * 1000
    if process.returncode:
        raise SystemExit(f"{argv} ended with {process.returncode}: {said.decode()}")
    return wall, (usage.ru_utime + usage.ru_stime) * 1000


def measure(
    candidates: Mapping[str, Sequence[str]],
    root: Path,
    rounds: int,
    before: Callable[[], None] = lambda: None,
) -> dict[str, Time]:
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds + 1):
        for name in order:
            before()
            runs[name].append(once(candidates[name], root))
        order.reverse()
    times = {}
    for name, (_, *measured) in runs.items():  # the first fills the caches
        walls, cpus = zip(*measured, strict=True)
        times[name] = Time(walls, cpus)
    return times


def show(title: str, times: dict[str, Time], floor: Sequence[str]) -> Time:
    """Prints a table; returns the floor, which is the sum of the named rows."""
    least = together([times[name] for name in floor])
    print(f"\n{title}\n  {'':34} {'wall ms':>9} {'median':>9} {'CPU ms':>9} {'of floor':>9}")
    for name, each in [("floor", least), *times.items()]:
        row = f"{each.wall:9.1f} {median(each.walls):9.1f} {each.cpu:9.1f}"
        ratios = each.of(least)
        half = f"{ratios[len(ratios) // 4]:6.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        print(f"  {name:34} {row} {median(ratios):9.2f} {half}")
    sys.stdout.flush()
    return least


# --- repositories ---------------------------------------------------------------------------


def make_files(root: Path, count: int, *, on_disk: bool) -> None:
    """A repository with so many files in its index and HEAD; on disk, where that is wanted."""
    root.mkdir(parents=True)
    git(root, "init", "-q", "--initial-branch=main")
    contents = {
        "pyproject.toml": PYPROJECT,
        "src/shop/defs/__init__.py": "",
        ".gitignore": ".local_defs_state/\n",
        "text": "the same text everywhere\n",
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    git(root, "add", "-A")
    blob = git(root, "hash-object", "text").decode().strip()
    names = sorted(  # git takes what comes in its own order without moving what it has
        f"services/team{number % 997:03}/src/package{number % 31}/module_{number:07}.py"
        for number in range(count)
    )
    lines = "".join(f"100644 {blob}\t{name}\n" for name in names)
    git(root, "update-index", "--index-info", stdin=lines.encode())
    git(root, "commit", "-q", "-m", "files")
    if on_disk:
        git(root, "checkout", "-q", "-f", "HEAD")
    else:  # as a sparse checkout leaves them: in the index, not on disk
        git(root, "update-index", "-z", "--skip-worktree", "--stdin",
            stdin="".join(f"{name}\0" for name in names).encode())  # fmt: skip


def make_history(root: Path, count: int) -> None:
    """A repository with so many commits, of which none touches state."""
    root.mkdir(parents=True)
    git(root, "init", "-q", "--initial-branch=main")
    stream = []
    for number in range(1, count + 1):
        path = f"services/team{number % 97}/package{number % 31}/module{number % 7}.py"
        text = f"{number}\n"
        parent = f"from :{number - 1}\n" if number > 1 else ""
        stream.append(
            f"commit refs/heads/main\nmark :{number}\ncommitter C <c@example.com> {number} +0000\n"
            f"data 1\nx\n{parent}M 644 inline {path}\ndata {len(text)}\n{text}\n"
        )
    git(root, "fast-import", "--quiet", stdin="".join(stream).encode())
    git(root, "reset", "-q", "--hard")
    git(root, "commit-graph", "write", "--reachable")


# --- what is measured -----------------------------------------------------------------------

EMPTY = [sys.executable, "-I", "-c", "pass"]


def hook_of(root: Path, text: str) -> Path:
    path = root / ".git" / "hooks" / "pre-commit"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def shell_hook(root: Path) -> list[str]:
    path = root / ".git" / "shell-hook"
    path.write_text(
        "#!/bin/sh\n"
        f'[ -z "$(git ls-files -z -s -- "{STATE}")" ] || exit 1\n'
        f'git check-ignore -q --no-index -- "{STATE}/K/state" || exit 1\n'
    )
    path.chmod(0o755)
    return [str(path)]


def with_before(candidates: dict[str, list[str]], before: Path | None) -> dict[str, list[str]]:
    """Each state-guard again, as it was before."""
    theirs = {
        f"{name}, before": [str(before), *argv[1:]]
        for name, argv in candidates.items()
        if argv[0] == GUARD and before is not None
    }
    return {**candidates, **theirs}


def compare(times: Mapping[str, Time]) -> None:
    for name, each in times.items():
        if (before := times.get(f"{name}, before")) is not None:
            print(f"  {name}: {median(each.of(before)):.2f} of what it was before")


def files(root: Path, count: int, rounds: int, *, on_disk: bool, before: Path | None) -> list[str]:
    """The moments before a commit and before a build; returns the aims that were missed."""
    missed = []
    ls_files = ["git", "ls-files", "-z", "-s", "--", STATE]
    check_ignore = ["git", "check-ignore", "-q", "--no-index", "--", f"{STATE}/K/state"]
    candidates = {
        "empty interpreter": EMPTY,
        "git ls-files": ls_files,
        "git check-ignore": check_ignore,
        "state-guard --staged": [GUARD, "--staged"],
        "shell": shell_hook(root),
    }
    if LARGE_FILES is not None:
        candidates["large files"] = [LARGE_FILES]
    times = measure(with_before(candidates, before), root, rounds)
    floor = show(
        f"A commit in a repository of {count:,} files",
        times,
        ["empty interpreter", "git ls-files", "git check-ignore"],
    )
    compare(times)
    ratio = median(times["state-guard --staged"].of(floor))
    if ratio > AIM_RATIO:
        missed.append(f"--staged, {count:,} files: {ratio:.2f} times the floor")
    if on_disk:
        missed += whole(root, count, rounds, before)
    return missed + commit(root, count, rounds)


def whole(root: Path, count: int, rounds: int, before: Path | None) -> list[str]:
    """Before a build: the work tree is looked through, as ``git add -A`` would do."""
    (root / STATE / "K").mkdir(parents=True, exist_ok=True)
    (root / STATE / "K" / "state").write_text('{"rows": [1, 2, 3, 4, 5, 6, 7, 8]}\n')
    everywhere = ":(top,glob)**/.local_defs_state/**"
    candidates = {
        "empty interpreter": EMPTY,
        "git rev-parse": ["git", "rev-parse", "--show-object-format", "--absolute-git-dir", "HEAD"],
        "git ls-files": ["git", "ls-files", "-z", "-s", "--", everywhere],
        "git diff-index": ["git", "diff-index", "--cached", "--raw", "HEAD", "--", everywhere],
        "git check-ignore": ["git", "check-ignore", "-v", "--no-index", "--", f"{STATE}/K/state"],
        "git cat-file": ["git", "cat-file", "--batch-check"],
        "git ls-files -o": ["git", "ls-files", "-o", "--exclude-standard", "--", everywhere],
        "state-guard": [GUARD],
        "state-guard --staged": [GUARD, "--staged"],
    }
    times = measure(with_before(candidates, before), root, rounds)
    floor = show(
        f"Before a build, {count:,} files on disk, with state",
        times,
        [name for name in candidates if name.startswith(("empty", "git "))],
    )
    compare(times)
    shutil.rmtree(root / STATE)
    ratio = median(times["state-guard"].of(floor))
    return [f"guard, {count:,} files: {ratio:.2f} times the floor"] if ratio > AIM_RATIO else []


def commit(root: Path, count: int, rounds: int) -> list[str]:
    """git itself, without a hook, with one that does nothing (git reads the index again), ours."""
    ours = hook_of(root, f'exec "{GUARD}" --staged')
    number = 0

    def change() -> None:
        nonlocal number
        number += 1
        (root / "text").write_text(f"{number}\n")
        git(root, "add", "text")

    nothing = ours.parent.with_name("hooks-nothing")
    nothing.mkdir(exist_ok=True)
    (nothing / "pre-commit").write_text("#!/bin/sh\n")
    (nothing / "pre-commit").chmod(0o755)
    times = measure(
        {
            "git commit --no-verify": ["git", "commit", "-q", "--no-verify", "-m", "x"],
            "git commit, a hook of nothing": [
                *("git", "-c", f"core.hooksPath={nothing}", "commit", "-q", "-m", "x")
            ],
            "git commit, the guard": ["git", "commit", "-q", "-m", "x"],
        },
        root,
        max(3, rounds // 2),
        change,
    )
    show(f"git commit, {count:,} files", times, ["git commit --no-verify"])
    nobody, guarded = times["git commit, a hook of nothing"], times["git commit, the guard"]
    longer = median(guarded.cpus) - median(nobody.cpus)
    print(f"  {longer:.1f} ms of CPU more than with a hook of nothing")
    if longer > AIM_COMMIT_MS:
        return [f"git commit, {count:,} files: {longer:.1f} ms longer"]
    return []


def history(root: Path, count: int, rounds: int) -> list[str]:
    everywhere = ":(top,glob)**/.local_defs_state/**"
    walk = ["git", "rev-list", "--full-history", "--all", "--", everywhere]
    candidates = {
        "git's own walk": walk,
        "state-guard --history": [GUARD, "--history"],
        "git's walk of one literal path": [*walk[:-1], STATE],
    }
    times = measure(candidates, root, rounds)
    floor = show(f"A history of {count:,} commits", times, ["git's own walk"])
    ratio = median(times["state-guard --history"].of(floor))
    if ratio > AIM_HISTORY and count >= 100_000:  # below, the interpreter's start is most of it
        return [f"--history, {count:,} commits: {ratio:.2f} times git's walk"]
    return []


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=numbers, default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--commits", type=numbers, default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--before", type=Path, help="another state-guard, to compare with")
    parser.add_argument("--keep", type=Path, help="make the repositories here, and keep them")
    options = parser.parse_args()
    home = options.keep or Path(tempfile.mkdtemp(prefix="guard-benchmark-"))
    missed = []
    try:
        for count in options.sizes:
            root = home / f"files-{count}"
            on_disk = count <= 100_000
            if not root.exists():
                make_files(root, count, on_disk=on_disk)
            missed += files(root, count, options.rounds, on_disk=on_disk, before=options.before)
        for count in options.commits:
            root = home / f"commits-{count}"
            if not root.exists():
                make_history(root, count)
            missed += history(root, count, options.rounds)
    finally:
        if options.keep is None:
            shutil.rmtree(home)
    print("\n" + ("\n".join(f"missed: {each}" for each in missed) or "All aims are met."))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
