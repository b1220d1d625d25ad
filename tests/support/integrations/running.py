"""A vendor's project with a component for each case, refreshed against its stand-in and judged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from bundler.errors import BundlerError, Several
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.state.json_entries import entries_in
from bundler.state.statedir import sanitize_key
from bundler.state.tree import dir_hash, scan
from tests.support import warm
from tests.support.environments import ROOT, python_of
from tests.support.integrations.standin import PAGES, Case, Fault, StandIn
from tests.support.recording import RecordingListener

# The exit codes that a fault may end with. All may end with 0 where nothing was lost: what a
# sign-out answers is of no account. After an empty answer, what comes next may be refused.
CODES: Mapping[str, frozenset[int]] = {
    "401": frozenset({77}),
    "403": frozenset({77}),
    "404": frozenset({78}),
    "429": frozenset({69}),
    "500": frozenset({69}),
    "503": frozenset({69}),
    "html": frozenset({69}),
    "cut": frozenset({69}),
    "empty": frozenset({65, 77, 78}),
    "missing-page": frozenset({78}),
    "empty-page": frozenset({65}),
    "refused": frozenset({69}),
    "hanging": frozenset({69}),
    "dripping": frozenset({69}),
}
_BAD_DATA = frozenset({65})
# Generous: on a busy machine everything is late.
_LATE_SECONDS = 15.0
_WELL_SECONDS = 300.0
_SHORT_SECONDS = 10.0
_FEW = 12
_FOLDER = "warehouse/defs"


@dataclass
class Account:
    """A copy of the vendor's project. timeout: seconds that a key has."""

    standin: StandIn
    root: Path
    timeout: float = 60.0
    listener: RecordingListener = field(default_factory=RecordingListener)

    @property
    def states(self) -> Path:
        return self.root / _FOLDER / ".local_defs_state"

    @property
    def python(self) -> Path:
        return python_of(self.standin.requirements or f"integration-{self.standin.name}")

    @property
    def variables(self) -> dict[str, str]:
        return {
            **self.standin.environment,
            **self.standin.variables,
            "DAGSTER_DISABLE_TELEMETRY": "true",
        }

    def state(self, case: Case) -> Path:
        return self.states / sanitize_key(self.standin.key(case)) / "state"

    def digests(self) -> dict[str, str]:
        """What is published, by the name of the key's directory."""
        return {
            path.name: dir_hash(scan(path).files)
            for path in self.states.iterdir()
            if path.is_dir() and not path.name.startswith("@")
        }

    def refresh(self, *keys: str, timeout: float | None = None) -> dict[str, BundlerError]:
        """Refreshes all components, or some. Returns the failures by key."""
        options = RefreshOptions(
            keys=keys,
            over_all=KeyOptions(timeout=timeout or self.timeout, attempts=2),
            kind_jobs={"*": 12},
            total_timeout=3600,
        )
        self.listener = RecordingListener()
        with self._environment():
            project = open_project(self.root, python=self.python)
            try:
                refresh([project], options, self.listener)
            except Several as several:
                return {failure.key or "": failure for failure in several.failures}
            except BundlerError as failure:
                return {failure.key or "": failure}
        return {}

    @contextmanager
    def _environment(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            yield

    def assets(self) -> set[str]:
        """What a code server would load, with no network to reach."""
        return loaded_assets([str(warm.program(self.python)), "-"], self.root, self.variables)


def loaded_assets(argv: Sequence[str], root: Path, variables: Mapping[str, str]) -> set[str]:
    """The assets of the code location below a root, loaded where every connection is refused.

    Where the kernel allows it, in a network namespace that has nothing but itself.
    """
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:1")
    done = subprocess.run(
        [*_alone(), *argv],
        input=PROBE,
        text=True,
        cwd=root,
        env={**os.environ, **variables, **nowhere, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ASSETS ")]
    return set(json.loads(line.removeprefix("ASSETS ")))


@cache
def _alone() -> tuple[str, ...]:
    argv = ("unshare", "--map-root-user", "--net")
    done = subprocess.run([*argv, "true"], capture_output=True, check=False)
    return argv if done.returncode == 0 else ()


# As a production server loads: `refresh_if_dev` has no say.
PROBE = """
import json
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext, DefinitionsLoadType,
)
DefinitionsLoadContext.set(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION))
from warehouse.definitions import defs
keys = [spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()]
print("ASSETS", json.dumps(sorted(set(keys))))
"""


def make_account(standin: StandIn, root: Path, *, timeout: float = 60.0) -> Account:
    """The vendor's project at this path, with a component for each case of the stand-in."""
    shutil.copytree(ROOT / "tests" / "projects" / f"integration_{standin.name}", root)
    if standin.cases:
        shutil.rmtree(root / _FOLDER / "account")
    for case in standin.cases.values():
        folder = root / _FOLDER / folder_of(case)
        folder.mkdir()
        text = standin.component(case)
        module, vendors = re.findall(r"^type: (\S+)\.(\w+)$", text, re.MULTILINE)[0]
        if case.subclass:
            text = text.replace(f"{module}.{vendors}", f"warehouse.ours.{case.subclass}{vendors}")
        (folder / "defs.yaml").write_text(text)
        (root / "warehouse" / "ours.py").write_text(_OURS.format(module=module, vendors=vendors))
    return Account(standin, root, timeout)


# What a project makes of a vendor's class: what is known of that must hold for it.
_OURS = """\
from {module} import {vendors}


class Our{vendors}({vendors}):
    pass


class Labelled:
    label = "team"


class Team{vendors}(Labelled, Our{vendors}):
    pass
"""


def folder_of(case: Case) -> str:
    """Where the project declares the component of a case."""
    return case.name.replace("-", "_")


# --- every fault --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of one fault. wrong: why it is not as it should be; empty if it is."""

    fault: Fault
    code: int
    what: str
    seconds: float
    wrong: str = ""


def cases_of(faults: Sequence[Fault], size: int) -> list[Case]:
    """One case a fault, named after it. Of pages, enough must be missing to be missed."""
    return [
        Case(
            fault.case,
            fault.fault,
            fault.endpoint,
            30 if fault.fault in PAGES else size,
            subclass=fault.subclass,
        )
        for fault in faults
    ]


def try_faults(account: Account, faults: Sequence[Fault]) -> list[Verdict]:
    """Refreshes well, then with every fault at its component, and judges each of them.

    Those that went well in spite of their fault are refreshed once more by themselves, since only
    then their state is published: it must hold what it held before.
    """
    standin = account.standin
    standin.well = True
    failures = account.refresh(timeout=_WELL_SECONDS)
    assert not failures, {key: failure.what for key, failure in failures.items()}
    before = account.digests()
    standin.well = False
    failures = account.refresh(*(standin.key(standin.cases[fault.case]) for fault in faults))
    listener = account.listener
    assert account.digests() == before, "a failed refresh has changed a state"
    tried = [standin.cases[fault.case] for fault in faults]
    passed = [case for case in tried if standin.key(case) not in failures]
    lost = dict(_losses(account, passed)) if passed else {}
    return [
        _judge(account, fault, failures.get(account.standin.key(case)), listener, lost)
        for fault in faults
        for case in [standin.cases[fault.case]]
    ]


@dataclass
class Tried:
    """A thinned part of the matrix and what came of it. good: cases without any fault."""

    account: Account
    good: tuple[Case, ...]
    verdicts: list[Verdict]

    @property
    def standin(self) -> StandIn:
        return self.account.standin

    @property
    def wrong(self) -> list[str]:
        return [
            f"{verdict.fault}: {verdict.wrong}. {verdict.what}"
            for verdict in self.verdicts
            if verdict.wrong
        ]

    def missing_assets(self) -> set[str]:
        """What the good account has, but not the code location loaded from its state alone."""
        good = self.good[0]
        alone = self.account.root.with_name("alone")
        others = [folder_of(case) for case in self.standin.cases.values() if case != good]
        shutil.copytree(self.account.root, alone, ignore=shutil.ignore_patterns(*others))
        return self.standin.assets(good) - Account(self.standin, alone).assets()

    def leaks(self) -> list[str]:
        """Where a secret was shown or published. What an expression holds is the vendor's own."""
        shown = [*self.account.listener.texts, *(verdict.what for verdict in self.verdicts)]
        found = [text for text in shown if "canary" in text]
        for path in self.account.states.rglob("*"):
            if path.is_file():
                text = path.read_bytes().replace(b"canary-in-an-expression", b"")
                found += [str(path)] if b"canary" in text else []
        return found


@contextmanager
def trying(
    vendor: type[StandIn], good: Case, faults: Sequence[Fault], folder: Path, *more: Case
) -> Iterator[Tried]:
    """Some faults, and good accounts of a realistic size: in one project, by three refreshes."""
    with vendor(*cases_of(faults, _FEW), good, *more) as standin:
        account = make_account(standin, folder / "project", timeout=_SHORT_SECONDS)
        yield Tried(account, (good, *more), try_faults(account, faults))


def _losses(account: Account, cases: Sequence[Case]) -> Iterator[tuple[str, str]]:
    """What the states of these cases have lost when they are published, by case."""
    held = {case.name: _entries(account.state(case)) for case in cases}
    failures = account.refresh(*(account.standin.key(case) for case in cases))
    assert not failures, {key: failure.what for key, failure in failures.items()}
    for case in cases:
        now = _entries(account.state(case))
        if now != held[case.name]:
            yield case.name, f"success, though the state went from {held[case.name]} to {now}"


def _entries(state: Path) -> int:
    with state.open("rb") as stream:
        return entries_in(stream) or 0


def _judge(
    account: Account,
    fault: Fault,
    failure: BundlerError | None,
    listener: RecordingListener,
    lost: Mapping[str, str],
) -> Verdict:
    standin = account.standin
    case = standin.cases[fault.case]
    key = standin.key(case)
    seconds = listener.took.get(key, 0.0)
    code = failure.exit_code if failure else 0
    what = failure.what if failure else ""
    wrong = [lost[case.name]] if case.name in lost else []
    right = standin.codes.get(fault.fault) or CODES.get(fault.fault, _BAD_DATA)
    if failure is not None and code not in right:
        wrong.append(f"exit code {code}")
    if seconds > account.timeout + _LATE_SECONDS:
        wrong.append(f"took {seconds:.0f} s")
    if failure is not None:
        wrong += _unclear(failure, key, standin.host(case, fault.endpoint))
    return Verdict(fault, code, what, seconds, "; ".join(wrong))


def _unclear(failure: BundlerError, key: str, host: str) -> list[str]:
    text = f"{failure.what} {failure.hint}"
    found = []
    if not failure.what.startswith(f"{key}: "):
        found.append("does not name the key")
    if failure.exit_code != 65 and host not in failure.what:  # 65 may be said of the state
        found.append("does not name the host")
    if not failure.hint:
        found.append("has no hint")
    if "canary" in text:
        found.append("shows a secret")
    return found
