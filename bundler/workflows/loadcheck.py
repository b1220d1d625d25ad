"""``--load-check``: the code location is loaded inside the finished artifact, without network.

Dagster loads a component whose state is missing as "no assets" and says that all is well. So the
artifact's own interpreter imports the program (`bundler.load_at_start`, handed over on stdin,
nothing is installed), and what came of it is judged here: each local key had its state, nothing
failed, and there are not fewer definitions than demanded, or than in the artifact that had this
name before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from bundler.artifacts.definitions import Request, describe
from bundler.artifacts.image.engine import running
from bundler.artifacts.image.engine.opening import EngineImage
from bundler.artifacts.running import NOT_STARTED, Runner, in_pex, with_wheel
from bundler.errors import ToolFailed, UsageError, VerificationFailed
from bundler.listener import Listener
from bundler.load_at_start import REPORT
from bundler.project.projects import Project
from bundler.refresh.definitions import target_of
from bundler.refresh.surroundings import configured_surroundings
from bundler.state.artifact import Artifact
from bundler.state.bundle import verifier
from bundler.state.definitions import DefinitionChange, Definitions, compare
from bundler.state.manifest import DirectoryRefresh
from bundler.system.parallel import while_programs_run
from bundler.system.process import last_word
from bundler.system.wording import counted

_SHOWN_CHANGES = 5
# The last line of an artifact's error if it is for another interpreter or platform.
_FOREIGN = re.compile(
    rb"exec format error|compatible interpreter|compatible dependencies"
    rb"|Failed to resolve requirements from PEX"
)
_ABSENT = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
_NO_CONFIGURATION = re.compile(r"(?i)config file|no dg\.toml above")
# They describe the machine that a program runs on: this one's would mislead another.
_MACHINE = frozenset(
    {"DOCKER_HOST", "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "PYTHONHOME", "PYTHONPATH"}
    | {"SHELL", "SHLVL", "TERM", "TMPDIR", "USER", "VIRTUAL_ENV", "_"}
)


@dataclass(frozen=True)
class LoadCheck:
    """The requirements of a load check.

    targets: what to load, ``MODULE``, ``MODULE:NAME`` or ``defs-of:PACKAGE``. least: definitions of
    all targets together. environment: passed to the program. compares: whether to compare with the
    artifact that has the name before. is_required: whether a load that cannot be tried is a
    failure. may_be_absent: whether the targets are only what a refresh needs, which need not ship.
    declared: the file of each embedded key that a file declares, which must be loaded.
    """

    targets: tuple[str, ...]
    least: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    compares: bool = True
    is_required: bool = True
    may_be_absent: bool = False
    declared: Mapping[str, str] = field(default_factory=dict)


class NotTried(ToolFailed):
    """The artifact does not run here, which says nothing about the artifact."""


class LoadedLocation(msgspec.Struct, frozen=True):
    """The result of one load; see `bundler.load_at_start.LoadReport`."""

    definitions: dict[str, int]
    states: dict[str, bool | None]
    error: str | None
    declared: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.definitions.values())


def targets_of(projects: Sequence[Project], named: Sequence[str] = ()) -> tuple[str, ...]:
    """What to load of these projects: what the user names, else what a code server would load.

    Raises `UsageError` for a project without Dagster if nothing was named for it.
    """
    if named:
        return tuple(named)
    return tuple(target for project in projects for target in _targets(project))


def _targets(project: Project) -> list[str]:
    if (target := target_of(project)) is not None:
        return [target]
    # The modules of its components; a function that uses them is only known by name.
    components = (source.component or "" for source in project.config.sources)
    modules = [module for module, _, _ in (each.partition(":") for each in components) if module]
    if not modules:
        raise UsageError(
            f"It is unknown what to load in {project.name}.",
            hint="Pass the module with --load-module, or a function that returns its definitions "
            "with --load-module MODULE:NAME.",
        )
    return list(dict.fromkeys(modules))


def environment_of(
    refresh: Sequence[DirectoryRefresh], environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables that the components read when they were found, with their values here."""
    names = {
        name
        for directory in refresh
        for key in directory.keys
        for name in key.environment_variables
    }
    return {name: environ[name] for name in sorted(names - _MACHINE) if name in environ}


def check(
    run: Runner,
    demanded: LoadCheck,
    name: str,
    listener: Listener,
    *,
    baseline: Runner | None = None,
) -> tuple[LoadedLocation, ...]:
    """Loads the targets and judges the result.

    baseline: runs in the artifact that had the name before. Raises `VerificationFailed` for a
    missing state, an error, or too few definitions; `ToolFailed` if it could not be tried.
    """
    loaded = _load_all(run, demanded, name)
    for target, item in zip(demanded.targets, loaded, strict=True):
        if demanded.may_be_absent and _is_absent(target, item.error or ""):
            raise NotTried(f"it does not contain {target}; name the module with --load-module")
        # The libraries of such a PEX are in another one, or come from the environment.
        for library in () if demanded.is_required else ("dagster", "bundler"):
            if _is_absent(library, item.error or ""):
                raise NotTried(f"it does not contain {library}; --load-check makes that an error")
    problems = [problem for item in loaded for problem in _problems(item)]
    if problems:
        raise VerificationFailed(
            f"{name} does not load: {' '.join(problems)}",
            hint=_advice(problems),
        )
    _refuse_lacking(demanded, loaded, name)
    total = sum(item.total for item in loaded)
    least, why = demanded.least, "--min-definitions requires"
    if demanded.least == LoadCheck.least:
        why = "the minimum is"
    compared = baseline if demanded.compares else None
    before = _before(compared, demanded, listener) if compared is not None else None
    if before is not None and before > least:
        least, why = before, "the current artifact of that name has"
    # By default, a location that reads its states may define nothing.
    uses_states = not demanded.is_required and any(any(item.states.values()) for item in loaded)
    if total < least and not uses_states:
        raise VerificationFailed(
            f"{name} loads only {_told(loaded)}; {why} {least}.",
            hint="If so few definitions are expected, pass --min-definitions N.",
        )
    unjudged = sorted(key for item in loaded for key, there in item.states.items() if there is None)
    if unjudged:
        listener.note(f"Not in the artifact, so not checked: {', '.join(unjudged)}.")
    listener.note(f"Loads {_told(loaded)}.")
    return loaded


def _refuse_lacking(demanded: LoadCheck, loaded: Sequence[LoadedLocation], name: str) -> None:
    there = {key for item in loaded for key in (*item.states, *item.declared)}
    lacking = [f"{key} ({file})" for key, file in demanded.declared.items() if key not in there]
    if lacking:
        raise VerificationFailed(
            f"{name} contains states that nothing in it loads: {', '.join(lacking)}.",
            hint="Include the files that declare the components. setuptools omits them without "
            '[tool.setuptools.package-data] "*" = ["*.yaml"]. If the code location does not load '
            "them on purpose, name what it loads with --load-module.",
        )


def compare_with_plan(
    run: Runner,
    demanded: LoadCheck,
    projects: Sequence[Project],
    expected: Mapping[str, Definitions],
    name: str,
) -> None:
    """Raises `VerificationFailed` if the artifact defines anything other than a plan says.

    expected: by the project's name.
    """
    planned = [project for project in projects if project.name in expected]
    differing: list[str] = []

    def describe_one(project: Project) -> Definitions:
        return describe(
            run,
            Request(target_of(project) or ""),  # as in the plan, whatever else is loaded
            demanded.environment,
            name,
            configured_surroundings(project).secrets.redact,  # as in the plan
        )

    found_in = while_programs_run(describe_one, planned)
    for project, found in zip(planned, found_in, strict=True):
        if found.error is not None:
            raise VerificationFailed(f"{name} does not load: {found.error}")
        differing += map(_differing, compare(expected[project.name], found.portable()).changes)
    if differing:
        more = len(differing) - _SHOWN_CHANGES
        raise VerificationFailed(
            f"{name} does not define what the plan says: {'; '.join(differing[:_SHOWN_CHANGES])}"
            + (f" and {more} more." if more > 0 else "."),
            hint="Its code or environment differs from the plan's: make a new plan with the code "
            "that it contains. To ship it without loading it, pass --no-load-check.",
        )


def _differing(change: DefinitionChange) -> str:
    what = f"{change.kind.removesuffix('s')} {change.name}"
    if change.change == "changed":
        return f"{what} has a different {', '.join(field.name for field in change.fields)}"
    return f"{what} is {'missing' if change.change == 'removed' else 'not in the plan'}"


def runners(
    artifact: Artifact, python: Path, root: Path, listener: Listener
) -> Callable[[str | None], Runner] | None:
    """How to run programs in an artifact of this kind, by its name; None if it cannot run.

    python: the interpreter for a PEX or a wheel. root: a temporary directory.
    """
    if artifact.kind == "pex":
        return lambda name: in_pex(Path(str(name)), python, root, listener)
    if artifact.kind == "docker":
        if not isinstance(artifact, EngineImage):
            return None
        docker, runs = artifact.engine.docker, artifact.runs_as()
        places = [claim.path for claim in artifact.claims() or ()]
        pythons = running.interpreters(runs, places)
        folder, settings = runs.code_directory() or "/", running.deciding(runs)
        return lambda name: running.runner(str(name), docker, pythons, folder, settings)
    if artifact.kind == "wheel":
        return lambda name: with_wheel(Path(str(name)), python, root, listener)
    return None


def described(demanded: LoadCheck, loaded: Sequence[LoadedLocation]) -> str:
    """What was loaded, for the last line."""
    made = f" ({_told(loaded)})" if any(item.total for item in loaded) else ""
    return f"loaded: {', '.join(demanded.targets)}{made}"


def _advice(problems: Sequence[str]) -> str:
    if any(_NO_CONFIGURATION.search(problem) for problem in problems):
        return (
            "Dagster looks for a dg.toml or pyproject.toml in the folders above the package and "
            "found none. Put one next to the package, or a dg.toml in it: "
            '[project]\nroot_module = "PACKAGE"'
        )
    return (
        "Do not ship it. Compare what the build included with what the program imports. "
        "To build without loading, pass --no-load-check."
    )


def _is_absent(target: str, error: str) -> bool:
    found = _ABSENT.match(error)
    return found is not None and f"{target}.".startswith(f"{found[1]}.")


def _problems(loaded: LoadedLocation) -> list[str]:
    found = [
        f"{key} has no state." for key, there in sorted(loaded.states.items()) if there is False
    ]
    return [*found, *([loaded.error] if loaded.error else [])]


def _told(loaded: Sequence[LoadedLocation]) -> str:
    kinds: dict[str, int] = {}
    for item in loaded:
        for kind, number in item.definitions.items():
            kinds[kind] = kinds.get(kind, 0) + number
    counts = [counted(number, kind.removesuffix("s")) for kind, number in kinds.items() if number]
    return ", ".join(counts) or "0 definitions"


def _before(run: Runner, demanded: LoadCheck, listener: Listener) -> int | None:
    try:
        loaded = _load_all(run, demanded, "It")
    except ToolFailed as error:
        listener.note(
            f"The older artifact could not be loaded, so definitions are not compared: {error.what}"
        )
        return None
    if any(item.error for item in loaded):
        listener.note("The older artifact does not load, so definitions are not compared.")
        return None
    return sum(item.total for item in loaded)


def _load_all(run: Runner, demanded: LoadCheck, name: str) -> tuple[LoadedLocation, ...]:
    work = partial(load, run, demanded=demanded, name=name)
    return tuple(while_programs_run(work, demanded.targets))


def load(run: Runner, target: str, demanded: LoadCheck, name: str) -> LoadedLocation:
    """Loads one target and returns the result. Raises `ToolFailed` if there is no answer."""
    done = run(["-", "--load", target, "--report"], verifier(), demanded.environment)
    marker = REPORT.encode()
    reports = [line for line in done.stdout.splitlines() if line.startswith(marker)]
    if not reports:
        said = last_word(_redacted(done.stderr, demanded))
        is_foreign = done.exit_code in NOT_STARTED or _FOREIGN.search(done.stderr)
        raise (NotTried if is_foreign else ToolFailed)(
            f"{name} could not be loaded: Python failed with exit code {done.exit_code}"
            + (f": {said}" if said else "."),
        )
    loaded = msgspec.json.decode(reports[-1][len(marker) :], type=LoadedLocation)
    if loaded.error is None:
        return loaded
    error = _redacted(loaded.error.encode(), demanded)
    return msgspec.structs.replace(loaded, error=error)


def _redacted(text: bytes, demanded: LoadCheck) -> str:
    """A program's output, without the values that were passed to it."""
    for value in demanded.environment.values():
        if len(value) > 3:  # noqa: PLR2004  # shorter ones are in any text
            text = text.replace(value.encode(), b"***")
    return text.decode(errors="replace")
