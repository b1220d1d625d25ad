"""The fault campaign of what writes artifacts and files: broken at every system call that does.

    python -m tests.campaigns.artifact_faults [--points N] [--jobs N] [--no-power-cuts]

A small project has new state; its PEX, its OCI layout, its archive and its store have the older
one. Each operation below is run once under strace, which lists the calls that touch the project's
folder or the folder for temporary files. Then it is repeated from the same start, each time with
one fault at one of these calls, as in `tests.campaigns.fault_campaign`. Afterwards:

- what has a name is what it was, or is whole and verifies;
- an error that the process sees is exit code 74 and names the file, and no traceback;
- the same command then succeeds, and what a killed process has left is removed.

A power cut also comes right after the command has succeeded: then the new files are there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.campaigns.fault_campaign import (
    STATES,
    Done,
    Fault,
    Point,
    configure,
    import_everything,
    run,
    some,
    traced_calls,
    write_inputs,
)
from tests.campaigns.faultimages import copy_image, make_image, mounted
from tests.campaigns.faultreport import Tally, table, write_report
from tests.support.layouts import LayoutMaker, code_layer

_OLD = {"a": {"state": "old"}, "b": {"state": "", "project/models/x": "old"}}
_NEW = {"a": {"state": "new"}, "b": {"state": "", "project/models/y": "new"}}
_NEVER = ("--refresh", "never", "--no-guard")
_LEFT = re.compile(r"\.state-bundler-|\.partial-|\.new$|/\.tmp")
_NAMED = re.compile(r"\(74\): (\S+: |.*/)")
# strace names the working directory also where a path does not begin there.
_HERE = re.compile(r'AT_FDCWD<[^>]*>, "/')
_OTHER_CODES = re.compile("cannot be started|Error: Invalid value.* does not exist", re.DOTALL)
KINDS = ("SIGKILL", "ENOSPC", "EIO", "EROFS")
DONE = "power cut after the end"


@dataclass(frozen=True)
class Operation:
    """A command that writes. outputs: what it makes or changes, by name.

    verifies: the commands that must succeed for an output that is not what it was.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    verifies: Callable[[Path, str], Iterator[tuple[str, ...]]]


def _by_itself(_: Path, output: str) -> Iterator[tuple[str, ...]]:
    yield ("verify", output)


def _every_tag(root: Path, output: str) -> Iterator[tuple[str, ...]]:
    for tag in tags_of(root / output):
        yield ("verify", f"oci:{output}:{tag}")


def tags_of(layout: Path) -> list[str]:
    """The images of a layout or an archive that have state."""
    if layout.is_dir():
        index = json.loads((layout / "index.json").read_text())
    else:
        with tarfile.open(layout) as archive:
            stream = archive.extractfile("index.json")
            assert stream is not None
            index = json.load(stream)
    names = [
        item["annotations"]["org.opencontainers.image.ref.name"] for item in index["manifests"]
    ]
    return [name for name in names if name != "code"]


def _store(_: Path, __: str) -> Iterator[tuple[str, ...]]:
    yield ("store", "verify", "--store", "file://{root}/store")
    yield ("store", "list", "--store", "file://{root}/store")


def _extracted(root: Path, output: str) -> Iterator[tuple[str, ...]]:
    yield ("verify", str(next((root / output).rglob("@manifest.json")).parent))


def _nothing(_: Path, __: str) -> Iterator[tuple[str, ...]]:
    """A text is old, or it is as long as the new one: each is one write."""
    yield from ()


_TO_STORE = ("store", "push", str(STATES), "--store", "file://{root}/store")
_FROM_CODE = ("build", "oci", "--base", "base:code", *_NEVER)
OPERATIONS = (
    Operation("update of a PEX", ("update", "app.pex", *_NEVER), ("app.pex",), _by_itself),
    Operation("update of a loose PEX", ("update", "loose", *_NEVER), ("loose",), _by_itself),
    Operation("update of a layout", ("update", "oci:layout:1", *_NEVER), ("layout",), _every_tag),
    Operation("update of an archive", ("update", "oci:i.tar:1", *_NEVER), ("i.tar",), _every_tag),
    Operation("embed", ("embed", "oci:base:code", "-t", "oci:m:1", *_NEVER), ("m",), _every_tag),
    Operation("an archive", (*_FROM_CODE, "-o", "made.tar:1"), ("made.tar",), _every_tag),
    Operation("extract", ("extract", "app.pex", "-o", "states/old"), ("states/old",), _extracted),
    Operation("export", ("refresh", "-o", "s.tar", "--when", "never"), ("s.tar",), _by_itself),
    Operation("init", ("init", "--yes"), (".gitignore", ".pre-commit-config.yaml"), _nothing),
    Operation("store push", _TO_STORE, ("store",), _store),
)


@dataclass(frozen=True)
class Campaign:
    """A place to work in, and the project that every operation begins with."""

    work: Path
    template: Path

    @staticmethod
    def prepare(work: Path) -> Campaign:
        """The project with the new state, and what has the old one."""
        root = work / "template"
        for name, keys in (("old", _OLD), ("new", _NEW)):
            write_inputs(work / name, keys)
        configure(root, work / "old", list(_OLD))
        (root / "src/shop/defs").mkdir(parents=True)
        for package in ("shop", "shop/defs"):
            (root / "src" / package / "__init__.py").touch()
        subprocess.run(["git", "init", "--quiet", "--template=", root], check=True)
        maker = LayoutMaker(root / "base")
        maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}), "code")
        campaign = Campaign(work, root)
        pex = ("build", "pex", "--no-guard", "--refresh", "never")
        oci = ("build", "oci", "--base", "base:code", *_NEVER)
        for arguments in (
            ("refresh",),
            (*pex, "-o", "app.pex", "--", "-D", "src", "--venv"),
            (*pex, "-o", "loose", "--", "-D", "src", "--layout", "loose", "--venv"),
            (*oci, "-o", "layout:1"),
            (*oci, "-o", "i.tar:1"),
            ("store", "push", str(STATES), "--store", f"file://{root}/store"),
        ):
            campaign.succeed(root, arguments)
        configure(root, work / "new", list(_NEW))
        campaign.succeed(root, ("refresh", "--allow-shrink", "*"))
        return campaign

    def succeed(self, root: Path, arguments: Sequence[str]) -> None:
        done = self.run(root, arguments)
        assert done.code == 0, (arguments, done.said)

    def run(self, root: Path, arguments: Sequence[str], trace: Sequence[str] = ()) -> Done:
        given = [argument.replace("{root}", str(root)) for argument in arguments]
        return run(root, self.work, given, trace)

    def points(self, root: Path, operation: Operation) -> list[Point]:
        """The calls that touch the project, without its state directory, or temporary files."""
        done = self.run(root, operation.arguments, trace=("-y", "-e", "trace=all"))
        assert done.code == 0, (operation.name, done.said)
        return [point for point, line in traced_calls(done.trace) if self._touches(root, line)]

    def _touches(self, root: Path, line: str) -> bool:
        line = _HERE.sub('"/', line)
        if str(root / STATES) in line:
            return False
        return str(root) in line or str(self.work / "tmp") in line

    def strike(self, root: Path, operation: Operation, fault: Fault) -> Done:
        call = fault.point.call
        trace = ("-y", "-e", f"trace={call}", "-e", f"inject={fault.injection}")
        done = self.run(root, operation.arguments, trace)
        if fault.kind.startswith("E"):
            struck = [line for line in done.trace.splitlines() if "(INJECTED)" in line]
            return replace(done, struck=any(self._touches(root, line) for line in struck))
        return replace(done, struck=done.code == -signal.SIGKILL)


def tree_of(path: Path) -> dict[str, bytes] | None:
    """The bytes of a file, or of every file below a folder; None if there is nothing."""
    if path.is_file():
        return {"": path.read_bytes()}
    if not path.exists():
        return None
    return {
        item.relative_to(path).as_posix(): item.read_bytes()
        for item in sorted(path.rglob("*"))
        if item.is_file() and not item.is_symlink()
    }


def judge(
    campaign: Campaign, root: Path, operation: Operation, fault: Fault, done: Done
) -> Iterator[str]:
    """What is wrong after a fault; yields ``=old``, ``=new`` for each output."""
    yield from _judge_end(campaign, root, fault, done)
    yield from _judge_outputs(campaign, root, operation)
    if fault.kind == DONE:
        yield from _judge_new(campaign, root, operation)
    if (root / "states/old").exists():
        shutil.rmtree(root / "states")  # a second extract would refuse it
    after = campaign.run(root, operation.arguments)
    if after.code or "Traceback" in after.said:
        yield f"the same command then ended with {after.code}: {after.said[-300:]}"
    for output in operation.outputs:
        if not (root / output).exists():
            yield f"{output} is not there after the same command"
    for word in _judge_outputs(campaign, root, operation):
        if not word.startswith("="):
            yield word
    names = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    left = [name for name in names if _LEFT.search(name)]
    if left:
        yield f"left behind: {left[:3]}"


def _judge_new(campaign: Campaign, root: Path, operation: Operation) -> Iterator[str]:
    for output in operation.outputs:
        if tree_of(root / output) == tree_of(campaign.template / output):
            yield f"{output} is the old one after the command has succeeded"


def _judge_end(campaign: Campaign, root: Path, fault: Fault, done: Done) -> Iterator[str]:
    temporary = campaign.work / "tmp"
    left = os.listdir(temporary) if temporary.exists() else []
    shutil.rmtree(temporary, ignore_errors=True)
    if not done.struck:
        return
    if "Traceback" in done.said or "unexpected" in done.said:
        yield f"a traceback: {done.said[-1000:]}"
    if fault.kind.startswith("E"):
        # A program that cannot be started is a 71, and of a path that click cannot look at it
        # says that it does not exist, a 2.
        if done.code not in (0, 74) and not _OTHER_CODES.search(done.said):
            yield f"exit code {done.code}: {done.said[-300:]}"
        if done.code == 74 and not _NAMED.search(done.said):
            yield f"no file is named: {done.said[-300:]}"
        # Where a folder cannot be looked at or removed, the next run does it.
        if left and fault.kind != "EIO" and not fault.point.call.startswith(("unlink", "rmdir")):
            yield f"left in TMPDIR: {left}"


def _judge_outputs(campaign: Campaign, root: Path, operation: Operation) -> Iterator[str]:
    for output in operation.outputs:
        before, now = tree_of(campaign.template / output), tree_of(root / output)
        if now == before:
            yield "=old"
        elif now is None:
            yield f"{output} does not exist"
        else:
            yield "=new"
            for command in operation.verifies(root, output):
                done = campaign.run(root, command)
                if done.code:
                    yield f"{output} is neither the old one nor whole: {done.said[-300:]}"


# --- campaigns --------------------------------------------------------------------------------


def on_a_folder(
    campaign: Campaign, operation: Operation, kind: str, points: Sequence[Point], limit: int | None
) -> Tally:
    root = campaign.work / "project"
    tally = Tally()
    chosen = [point for point in points if point.writes or kind == "EIO"]
    for fault in some([Fault(kind, point) for point in chosen], limit):
        copy(campaign.template, root)
        done = campaign.strike(root, operation, fault)
        _note(tally, fault, done, judge(campaign, root, operation, fault, done))
    return tally


def on_an_image(campaign: Campaign, operation: Operation, system: str, limit: int | None) -> Tally:
    """Power cuts on its own file system: in the middle, and after the end."""
    mount, old, now, cut = (
        campaign.work / name for name in ("mount", "old.img", "now.img", "cut.img")
    )
    mount.mkdir()
    make_image(old, system, megabytes=64)
    root = mount / "shop"
    with mounted(old, mount):
        copy(campaign.template, root)
    copy_image(old, now)
    with mounted(now, mount):
        points = [point for point in campaign.points(root, operation) if point.writes]
    faults = some([Fault("power cut", point) for point in points], limit)
    tally = Tally()
    for fault in (*faults, Fault(DONE, Point("", 0, writes=True))):
        copy_image(old, now)
        with mounted(now, mount):
            if fault.kind == DONE:
                done = campaign.run(root, operation.arguments)
            else:
                done = campaign.strike(root, operation, fault)
            copy_image(now, cut)
        with mounted(cut, mount):
            _note(tally, fault, done, judge(campaign, root, operation, fault, done))
    return tally


def copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


@contextmanager
def work_folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="faults-", dir=memory if memory.is_dir() else None
    ) as name:
        yield Path(name)


def find_points(template: Path, operation: Operation) -> list[Point]:
    with work_folder() as work:
        copy(template, work / "project")
        return Campaign(work, template).points(work / "project", operation)


def run_part(
    template: Path, operation: Operation, kind: str, points: Sequence[Point], limit: int | None
) -> Tally:
    """A line of the table, in its own working folder."""
    with work_folder() as work:
        campaign = Campaign(work, template)
        if kind.startswith("power cut on "):
            return on_an_image(campaign, operation, kind.rpartition(" ")[2], limit)
        return on_a_folder(campaign, operation, kind, points, limit)


def _note(tally: Tally, fault: Fault, done: Done, words: Iterator[str]) -> None:
    tally.points += 1
    tally.missed += not done.struck
    tally.codes[done.code] += 1
    for word in words:
        if word.startswith("="):
            tally.sets[word[1:]] += 1
        else:
            tally.problems.append(f"{fault.kind} {fault.injection}: {word}")
            print(f"PROBLEM {tally.problems[-1]}", file=sys.stderr, flush=True)


def run_all(
    operations: Sequence[Operation], kinds: Sequence[str], limit: int | None, jobs: int
) -> dict[tuple[str, str], Tally]:
    """Every line in its own process, so many concurrently."""
    import multiprocessing

    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    with (
        work_folder() as work,
        multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool,
    ):
        template = Campaign.prepare(work).template
        points = pool.starmap(find_points, [(template, operation) for operation in operations], 1)
        begun = [
            (
                (operation.name, kind),
                pool.apply_async(run_part, (template, operation, kind, at, limit)),
            )
            for operation, at in zip(operations, points, strict=True)
            for kind in kinds
        ]
        for part, result in begun:
            tallies[part].add(result.get())
    return dict(tallies)


def main() -> None:
    parser = argparse.ArgumentParser(description="Break what writes artifacts at every call.")
    parser.add_argument("--points", type=int, help="so many a line, evenly spread; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="concurrent lines")
    parser.add_argument("--no-power-cuts", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    parser.add_argument("--only", default="", help="operations with this in their name")
    given = parser.parse_args()
    import_everything()
    kinds = [*KINDS] if given.no_power_cuts else [*KINDS, "power cut on ext4"]
    operations = [item for item in OPERATIONS if given.only in item.name]
    tallies = run_all(operations, kinds, given.points, given.jobs)
    text = table(tallies)
    print(text)
    if given.write:
        write_report(given.write, text, "artifacts")
    sys.exit(any(tally.problems for tally in tallies.values()))


if __name__ == "__main__":
    main()
