"""The fault campaign: refreshes that are broken at every system call that touches the states.

    python -m tests.campaigns.fault_campaign [--points N] [--jobs N] [--no-power-cuts]
        [--write FILE]

A small project has published one set of states and refreshes to another: a changed file, a changed
tree, a new key, a removed key, a key that stays. One run under strace lists the system calls of
the command's own process that touch the state directory. Then the refresh is repeated from the
same start, each time with one fault at one of these calls:

- SIGKILL at every one of them;
- ENOSPC, EIO, EROFS, EACCES at every one that writes, EIO at every one that reads;
- a power cut at every one that writes, on ext4, xfs and btrfs in their own image: the
  process is killed, and the image copied as it is at that moment, mounted. The copy is what the
  disk holds: the journal is replayed, and what was never flushed is lost. (A disk that reports a
  flush that did not happen, or reorders writes across one, is not part of it.)

After each: no key is lost or mixed; the next command finds a whole set, old or new, or names the
interrupted publish, which a refresh completes; no traceback; nothing is left behind. The command
runs in a fork of a process that has imported it already, which saves half a second a time; power
cuts and strace need Linux and root.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundler.errors import VerificationFailed
from tests.campaigns.faultimages import FILE_SYSTEMS, copy_image, make_image, mounted
from tests.campaigns.faultreport import Tally, table, write_report

STATES = Path("src/shop/state")
_OLD = {
    "a": {"state": "old a"},
    "b": {"state": "", "project/models/x": "old", "project/seeds/s": "1"},
    "d": {"state": "[1]"},
    "gone": {"state": "g"},
}
_NEW = {
    "a": {"state": "new a"},
    "b": {"state": "", "project/models/y": "new", "project/seeds/s": "1"},
    "c": {"state": "new c"},
    "d": {"state/part": "[2]"},
}
_SAME = {"same": {"state": "forever"}}
_ERRNOS = ("ENOSPC", "EIO", "EROFS", "EACCES")
_WRITING = {
    *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "fsync", "write", "unlink"),
    *("unlinkat", "rmdir", "fchmodat"),
    *("fchmod", "chmod", "ftruncate", "flock", "link", "symlink"),
}
_LEFT = {"lock", "holder"}
# An expected failure of input or output, or none because the call did not matter.
_CODES = {0, 74}


@dataclass(frozen=True)
class Point:
    """A system call: the `ordinal`th of its name in the process."""

    call: str
    ordinal: int
    writes: bool


@dataclass(frozen=True)
class Fault:
    """What happens at a point. kind: ``SIGKILL``, ``power cut`` or the name of an errno."""

    kind: str
    point: Point

    @property
    def injection(self) -> str:
        what = f"error={self.kind}" if self.kind.startswith("E") else "signal=SIGKILL"
        return f"{self.point.call}:{what}:when={self.point.ordinal}"


@dataclass(frozen=True)
class Done:
    """A command that has ended. code: negative for a signal, as `subprocess` has it.

    struck: whether the fault struck a call that touches the states.
    """

    code: int
    said: str
    trace: str
    struck: bool = True


# --- the project ------------------------------------------------------------------------------


def write_inputs(folder: Path, keys: dict[str, dict[str, str]]) -> None:
    for key, files in keys.items():
        for name, text in files.items():
            path = folder / key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def configure(root: Path, inputs: Path, keys: Sequence[str]) -> None:
    """The project whose keys are copied from a folder."""
    sources = "".join(
        f'[[tool.state-bundler.source]]\nkey = "{key}"\npath = "{STATES}"\n'
        f'command = ["sh", "-c", "cp -R {inputs}/{key}/. ${{0%/state}}", "{{state_path}}"]\n'
        for key in keys
    )
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(f'[project]\nname = "shop"\nversion = "1"\n{sources}')


@dataclass(frozen=True)
class Campaign:
    """A place to work in. whole: the files of the old set and of the new one."""

    work: Path
    whole: dict[str, dict[str, bytes]]

    @property
    def template(self) -> Path:
        """The project with the old set published, configured for the new one."""
        return self.work / "template"

    @staticmethod
    def prepare(work: Path) -> Campaign:
        whole = {}
        template = work / "template"
        for name, keys in (("old", {**_OLD, **_SAME}), ("new", {**_NEW, **_SAME})):
            write_inputs(work / name, keys)
            root = work / f"{name}-project"
            configure(root, work / name, list(keys))
            done = run(root, work, ("refresh",))
            assert done.code == 0, done.said
            whole[name] = snapshot(root / STATES)
        shutil.copytree(work / "old-project", template)
        configure(template, work / "new", [*_NEW, *_SAME])
        return Campaign(work, whole)

    def points(self, root: Path) -> list[Point]:
        """Every system call of a refresh that touches the state directory."""
        done = run(root, self.work, REFRESH, trace=("-y", "-e", "trace=all"))
        assert done.code == 0, done.said
        return [point for point, line in traced_calls(done.trace) if str(root / STATES) in line]


def traced_calls(trace: str) -> Iterator[tuple[Point, str]]:
    """Every system call that strace shows, each with its line."""
    counts: Counter[str] = Counter()
    for line in trace.splitlines():
        call = re.match(r"(\w+)\(", line)
        if call is not None:
            counts[call[1]] += 1
            yield Point(call[1], counts[call[1]], _writes(call[1], line)), line


def _writes(call: str, line: str) -> bool:
    opened = call == "openat" and re.search(r"O_(CREAT|WRONLY|RDWR|TRUNC)", line) is not None
    return opened or call in _WRITING


def snapshot(states: Path) -> dict[str, bytes]:
    """Every file that belongs to the set."""
    return {
        path.relative_to(states).as_posix(): path.read_bytes()
        for path in sorted(states.rglob("*"))
        if path.is_file() and "@staging" not in path.parts and path.name != "@run.json"
    }


# --- running the command ----------------------------------------------------------------------

REFRESH = ("refresh", "--jobs", "1", "--attempts", "1", "--allow-shrink", "*")


def run(root: Path, work: Path, arguments: Sequence[str], trace: Sequence[str] = ()) -> Done:
    """The command in a fork of this process, which has imported it; under strace where wanted."""
    said, log = work / "said", work / "trace"
    log.unlink(missing_ok=True)
    (work / "tmp").mkdir(exist_ok=True)
    gate, opener = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(root, work, arguments, gate, opener)
    os.close(gate)
    tracer = None
    if trace:
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", log, *trace, "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        _wait_for_tracer(pid)
    os.close(opener)
    _, status = os.waitpid(pid, 0)
    if tracer is not None:
        tracer.wait(timeout=30)
    traced = log.read_text(errors="replace") if trace else ""
    return Done(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), traced)


def _child(root: Path, work: Path, arguments: Sequence[str], gate: int, opener: int) -> None:
    code = 70
    try:
        os.close(opener)
        output = os.open(work / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(root)
        os.environ["TMPDIR"] = tempfile.tempdir = str(work / "tmp")
        os.read(gate, 1)  # until strace is there
        code = command(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(arguments: Sequence[str]) -> int:
    from bundler.cli.commands import cli
    from bundler.cli.run import run as run_command

    return run_command(cli, arguments)


def import_everything() -> None:
    """What a child would import, so that it need not."""
    for name in (
        "artifacts.verify",
        *("cli.build", "cli.refresh", "cli.run", "cli.verify", "refresh.run", "state.directory"),
        *("refresh.sources", "setup.doctor", "setup.init", "store.store"),
        *("workflows.build.oci", "workflows.build.pex", "workflows.embed", "workflows.update"),
    ):
        __import__(f"bundler.{name}")
    for name in ("rfc8785", "stamina"):
        __import__(name)


def _wait_for_tracer(pid: int) -> None:
    deadline = time.monotonic() + 20
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "strace cannot attach"
        time.sleep(0.001)


# --- one fault --------------------------------------------------------------------------------


def strike(campaign: Campaign, root: Path, fault: Fault) -> Done:
    """Refreshes with this fault.

    The order of events differs a little between runs, so that it may strike the call next to it,
    on a pipe of ours, say.
    """
    call = fault.point.call
    trace = ("-y", "-e", f"trace={call}", "-e", f"inject={fault.injection}")
    done = run(root, campaign.work, REFRESH, trace)
    lines = [line for line in done.trace.splitlines() if line.startswith(f"{call}(")]
    if fault.kind.startswith("E"):
        struck = [line for line in lines if "(INJECTED)" in line]
    else:
        struck = lines[-1:] if done.code == -signal.SIGKILL else []
    return replace(done, struck=any(str(root / STATES) in line for line in struck))


def judge(campaign: Campaign, root: Path, fault: Fault, done: Done, turn: int) -> Iterator[str]:
    """What is wrong after a fault; yields ``=old``, ``=new``, ``=interrupted`` or ``=brought``.

    Every other time the next command is ``verify``, which finds a whole set, or says that a publish
    was interrupted, and changes nothing.
    """
    states = root / STATES
    yield from _judge_end(campaign, fault, done)
    yield from _mixed(states, campaign)
    arguments = ("verify", str(STATES)) if turn % 2 else REFRESH
    before = snapshot(states)
    after = run(root, campaign.work, arguments)
    is_told = turn % 2 and after.code == VerificationFailed.exit_code
    interrupted = is_told and "was interrupted" in after.said
    if (after.code != 0 and not interrupted) or "Traceback" in after.said:
        yield f"the next command ({arguments[0]}) ended with {after.code}: {after.said[-300:]}"
    found = snapshot(states)
    names = [name for name, files in campaign.whole.items() if files == found]
    if turn % 2 and found != before:
        yield "verify changed something"
    if not names and not interrupted:
        yield "no whole set after the next command"
    elif turn % 2:
        yield "=interrupted" if interrupted else f"={names[0]}"
        again = run(root, campaign.work, REFRESH)
        if again.code or snapshot(states) != campaign.whole["new"]:
            yield f"the refresh after that ended with {again.code}: {again.said[-300:]}"
    elif names != ["new"]:
        yield "a refresh did not bring the new set"
    else:
        yield "=brought"
    left = set(os.listdir(states / "@staging")) - _LEFT
    if left:
        yield f"left behind: {sorted(left)}"


def _judge_end(campaign: Campaign, fault: Fault, done: Done) -> Iterator[str]:
    if done.struck and ("Traceback" in done.said or "unexpected" in done.said):
        yield f"a traceback: {done.said[-1000:]}"
    if not fault.kind.startswith("E"):
        shutil.rmtree(campaign.work / "tmp")  # a killed process cannot
        return
    if done.struck and done.code not in _CODES:
        yield f"exit code {done.code}: {done.said[-300:]}"
    left = os.listdir(campaign.work / "tmp")
    if left and done.struck:
        yield f"left in TMPDIR: {left}"
    shutil.rmtree(campaign.work / "tmp")


def _mixed(states: Path, campaign: Campaign) -> Iterator[str]:
    """Before anything is repaired, each key is already old or new, or absent in one of the sets."""
    now = _by_key(snapshot(states))
    allowed = [_by_key(files) for files in campaign.whole.values()]
    for key in {*now, *allowed[0], *allowed[1]}:
        if now.get(key) not in [one.get(key) for one in allowed]:
            yield f"the key {key} is lost or mixed"


def _by_key(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path, data in files.items():
        key, slash, rest = path.partition("/")
        if slash:
            found[key][rest] = data
    return dict(found)


# --- campaigns --------------------------------------------------------------------------------

FOLDER = "a folder"
_KINDS = ("SIGKILL", *_ERRNOS)
# Those that strike every call, and not only those that write, are done by several processes.
_SHARES = {"SIGKILL": 4, "EIO": 4}


def on_a_folder(campaign: Campaign, kind: str, limit: int | None, share: int) -> Tally:
    """A share of one kind of fault, on the file system of the working folder."""
    root = campaign.work / "project"
    shutil.copytree(campaign.template, root)
    points = [
        point for point in campaign.points(root) if point.writes or kind in ("SIGKILL", "EIO")
    ]
    tally = Tally()
    faults = some([Fault(kind, point) for point in points], limit)
    for fault in faults[share :: _SHARES.get(kind, 1)]:
        shutil.rmtree(root)
        shutil.copytree(campaign.template, root)
        _note(tally, campaign, root, fault, strike(campaign, root, fault))
    return tally


def on_an_image(campaign: Campaign, system: str, limit: int | None) -> Tally:
    """Power cuts on its own file system."""
    mount, old, now, cut = (
        campaign.work / name for name in ("mount", "old.img", "now.img", "cut.img")
    )
    mount.mkdir()
    make_image(old, system)
    root = mount / "shop"
    with mounted(old, mount):
        shutil.copytree(campaign.template, root)
    copy_image(old, now)
    with mounted(now, mount):
        points = [point for point in campaign.points(root) if point.writes]
    tally = Tally()
    for fault in some([Fault("power cut", point) for point in points], limit):
        copy_image(old, now)
        with mounted(now, mount):
            done = strike(campaign, root, fault)
            copy_image(now, cut)
        with mounted(cut, mount):
            _note(tally, campaign, root, fault, done)
    return tally


def run_part(where: str, kind: str, limit: int | None, share: int) -> Tally:
    """A line of the table, or a share of one, in its own working folder."""
    memory = Path("/dev/shm")  # what is flushed to it is as durable to us, and sooner
    work = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if memory.is_dir() else None))
    try:
        campaign = Campaign.prepare(work)
        if where == FOLDER:
            return on_a_folder(campaign, kind, limit, share)
        return on_an_image(campaign, where, limit)
    finally:
        shutil.rmtree(work)


def run_all(
    parts: Sequence[tuple[str, str]], limit: int | None, jobs: int
) -> dict[tuple[str, str], Tally]:
    """Every line in its own processes, so many concurrently."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, maxtasksperchild=1) as pool:
        begun = [
            (part, pool.apply_async(run_part, (*part, limit, share)))
            for part in parts
            for share in range(_SHARES.get(part[1], 1))
        ]
        tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        for part, result in begun:
            tallies[part].add(result.get())
    return dict(tallies)


def _note(
    tally: Tally,
    campaign: Campaign,
    root: Path,
    fault: Fault,
    done: Done,
) -> None:
    tally.points += 1
    tally.missed += not done.struck
    tally.codes[done.code] += 1
    turn = tally.points
    for word in judge(campaign, root, fault, done, turn):
        if word.startswith("="):
            tally.sets[word[1:]] += 1
        else:
            tally.problems.append(f"{fault.injection}: {word}")
            print(f"PROBLEM {fault.kind} {fault.injection}: {word}", file=sys.stderr, flush=True)
    if turn % 50 == 0:
        print(f"  {turn} points of {fault.kind}", file=sys.stderr, flush=True)


def some(faults: list[Fault], limit: int | None) -> list[Fault]:
    """All of them, or so many, evenly spread."""
    if limit is None or limit >= len(faults):
        return faults
    return [faults[number * len(faults) // limit] for number in range(limit)]


# --- the command line -------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Break refreshes at every system call.")
    parser.add_argument("--points", type=int, help="so many a line, evenly spread; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="concurrent lines")
    parser.add_argument("--no-power-cuts", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    given = parser.parse_args()
    import_everything()
    parts = [(FOLDER, kind) for kind in _KINDS]
    if not given.no_power_cuts:
        parts += [(system, "power cut") for system in FILE_SYSTEMS]
    tallies = run_all(parts, given.points, given.jobs)
    text = table(tallies)
    print(text)
    missed = sum(tally.missed for tally in tallies.values())
    print(f"{missed} faults struck another call than was meant.", file=sys.stderr)
    if given.write:
        write_report(given.write, text)
    sys.exit(any(tally.problems for tally in tallies.values()))


if __name__ == "__main__":
    main()
