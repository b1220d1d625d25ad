"""Checks what would keep the state out of an image, or outdated in it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.context import missing_configuration
from bundler.artifacts.image.engine.dockerbuild import detect
from bundler.artifacts.image.engine.dockerfile import (
    Instruction,
    context_sources,
    instructions,
    needing_buildkit,
    refreshing,
    refuse_copied_state,
)
from bundler.artifacts.image.engine.ignore import (
    IGNORE_FILE,
    DockerIgnoreRule,
    excluded,
    parse,
    quoted,
    rules_in,
)
from bundler.artifacts.image.engine.left_out import (
    IGNORE_RULE,
    LeftOut,
    Names,
    find,
    named_sentence,
)
from bundler.errors import ConfigurationError, ToolFailed
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.code_in_image import (
    hides,
    state_in_image,
    volumes_of,
    working_directories,
)
from bundler.setup.doctor.printed import add_lines
from bundler.setup.init import docker_patterns
from bundler.system.reading import scanned
from bundler.system.secret_names import has_a_secret_name

if TYPE_CHECKING:
    from bundler.artifacts.image.engine.dockerbuild import Builder

_NOT_IN_CONTEXT = (
    "New state would invalidate the cache of the code's layers, so it stays out of the context, "
    "and this instruction finds nothing."
)
_REFRESHES_ELSEWHERE = "Remove it: a build refreshes beforehand, outside the image."


def context(patient: DoctorContext) -> Iterator[Finding]:
    """What goes to the engine with the build."""
    image = patient.image
    if image.dockerfile is None:
        yield Finding("ok", "There is no Dockerfile.")
        return
    ignored = rules_in(image.ignore_file)
    rules = parse(ignored)
    names = Names.of(scanned(image.dockerfile), image.dockerfile.name, ignored, {})
    root = patient.survey.root.resolve()
    reported = [root / ".venv", *(root / path for path in patient.survey.state_directories)]
    left_out = find(image.context, ignored, names, reported, _ignore_file(patient))
    findings = [
        *_unread(patient),
        *_missing_project_file(patient, rules),
        *_state_in_context(patient, rules),
        *_secrets_in_context(patient, left_out),
        *_environment_in_context(patient, rules),
    ]
    if not findings:
        yield Finding("ok", "The context contains the code and no state.")
    if said := str(left_out):
        yield Finding("ok", f"build docker leaves some files out. {said}")
    if left_out.artifacts:
        yield Finding("ok", f"The context contains older artifacts: {left_out.artifacts[0]}.")
    yield from findings


def _missing_project_file(
    patient: DoctorContext, rules: list[DockerIgnoreRule]
) -> Iterator[Finding]:
    image, root = patient.image, patient.survey.root
    text = scanned(image.dockerfile) if image.dockerfile else ""
    for name in missing_configuration(image.context, root, text, rules):
        yield Finding(
            "fail",
            f"{_ignore_file(patient)} excludes {name} from the image.",
            "Dagster uses that file to find the project and its state.",
            _add_rules(patient, [f"!{name}"]),
            where=_ignore_file(patient),
        )


def _unread(patient: DoctorContext) -> Iterator[Finding]:
    """An ignore file next to a Dockerfile whose context is another folder."""
    image, root = patient.image, patient.survey.root
    if image.context != root and (root / IGNORE_FILE).exists():
        yield Finding(
            "warn",
            f"The context is {os.path.relpath(image.context, root)}, so no build reads "
            f"{IGNORE_FILE} in the project.",
            "A build reads the context's ignore file, or the one named after the Dockerfile.",
            f"Move its rules to {_ignore_file(patient)}; they are relative to the context.",
        )


def _state_in_context(patient: DoctorContext, rules: list[DockerIgnoreRule]) -> Iterator[Finding]:
    # With exceptions, a rule that is there may have to come again, after them.
    present = {rule.text for rule in rules} if all(rule.exclude for rule in rules) else set()
    for directory in _states(patient):
        if not excluded(f"{directory}/state", rules):
            yield _unnamed(
                patient,
                str(directory),
                "New state invalidates the cached layers of the code, and an unverified copy "
                "gets into the image.",
                [rule for rule in docker_patterns(patient.survey) if rule not in present],
            )


def _secrets_in_context(patient: DoctorContext, left_out: LeftOut) -> Iterator[Finding]:
    for path in left_out.credentials:
        name = posixpath.basename(path)
        holds = "everything that was ever committed" if name == ".git" else "credentials"
        yield _unnamed(
            patient,
            path,
            f"It contains {holds}. build docker leaves it out; with a plain docker build, "
            "COPY . and ADD . put it into a layer, where it stays.",
            [f"**/{quoted(name)}"],
        )
    for path, where in left_out.named:
        sentence = named_sentence(path, where)
        fix = "Exclude it; a step that needs it can use RUN --mount=type=secret."
        if where == IGNORE_RULE:
            rules = [f"**/{quoted(posixpath.basename(path))}"]
            fix = _add_rules(patient, rules)
        yield Finding("warn", sentence, fix=fix)
    for path, where in left_out.copied:
        yield Finding(
            "warn",
            f"Git ignores {path}, which {where} copies, so build docker leaves it out.",
            "A plain docker build copies it.",
            _add_rules(patient, [f"!{quoted(path)}"]),
            where=_ignore_file(patient),
        )
    for problem in left_out.problems:
        yield Finding("warn", problem, fix="Run `git status` there to find out why.")


def _environment_in_context(
    patient: DoctorContext, rules: list[DockerIgnoreRule]
) -> Iterator[Finding]:
    environment = patient.survey.root / ".venv"
    for path in patient.image.inside([environment] if environment.is_dir() else []):
        if excluded(f"{path}/pyvenv.cfg", rules):
            continue
        yield _unnamed(
            patient,
            str(path),
            "The entire local environment is sent to the engine with each build, and COPY . "
            "overwrites the one in the image.",
            ["**/.venv"],
        )


def _unnamed(patient: DoctorContext, what: str, why: str, rules: Sequence[str]) -> Finding:
    """No rule leaves something out of the context."""
    file = _ignore_file(patient)
    fix = _add_rules(patient, rules)
    return Finding("warn", f"{file} does not exclude {what}.", why, fix, "dockerignore", file)


def _ignore_file(patient: DoctorContext) -> str:
    """The file with the rules that hold, seen from the project."""
    return os.path.relpath(patient.image.ignore_file, patient.survey.root)


def _add_rules(patient: DoctorContext, rules: Sequence[str]) -> str:
    file = patient.image.ignore_file
    return add_lines(file.parent, file.name, rules)


def _states(patient: DoctorContext) -> list[PurePosixPath]:
    """The state directories in the context, relative to it."""
    survey = patient.survey
    return patient.image.inside(survey.root / path for path in survey.state_directories)


def _dockerfiles(patient: DoctorContext) -> list[tuple[str, str]]:
    """The names, seen from the project, and the texts of its own and of the one that is built."""
    root, built = patient.survey.root, patient.image.dockerfile
    own = [root / path for path in patient.survey.dockerfiles]
    found = dict.fromkeys([*own, *([built] if built else [])])
    return [(os.path.relpath(path, root), scanned(path)) for path in found]


def dockerfiles(patient: DoctorContext) -> Iterator[Finding]:
    """Instructions that make the state useless."""
    for name, text in _dockerfiles(patient):
        findings = [
            Finding("warn", sentence, fix=_REFRESHES_ELSEWHERE, where=name)
            for sentence in refreshing(text, name)
        ]
        findings += _of_instructions(list(instructions(text)), name, patient)
        try:
            refuse_copied_state(text, name)
        except ConfigurationError as error:
            why, fix = _NOT_IN_CONTEXT, error.hint
            findings.append(Finding("fail", error.what, why, fix, where=error.where))
        sound = Finding("ok", f"{name}: no instruction creates or copies state.")
        yield from findings or [sound]


def _of_instructions(
    found: Sequence[Instruction], name: str, patient: DoctorContext
) -> Iterator[Finding]:
    states = state_in_image(found, _states(patient))
    places = states or working_directories(found)
    for instruction in found:
        where = f"{name}:{instruction.line}"
        if instruction.name in ("ARG", "ENV"):
            yield from _secret_argument(instruction, where)
        elif instruction.name == "VOLUME":
            yield from _volume(volumes_of(instruction, found), where, places)
        elif instruction.name in ("COPY", "ADD"):
            yield from _flattened(instruction, where)


def _secret_argument(found: Instruction, where: str) -> Iterator[Finding]:
    for word in found.text.split():
        variable = word.partition("=")[0]
        if has_a_secret_name(variable):
            yield Finding(
                "warn",
                f"{where} passes {variable} with {found.name}.",
                "Everyone who has the image can read it in `docker history` and in provenance. "
                "A build refreshes outside the image, so the image does not need it.",
                f"Remove {variable}; a step that needs it can use RUN --mount=type=secret.",
                where=where,
            )
            return


def _volume(volumes: Iterable[str], where: str, places: Sequence[str]) -> Iterator[Finding]:
    """A volume at or above the code: everything below it is not part of the image any more."""
    for volume in volumes:
        if any(hides(volume, place) for place in places):
            yield Finding(
                "warn",
                f"{where} declares the volume {volume}, which contains the code.",
                "A volume hides the state below it; build docker rejects such an image.",
                "Declare only the directory that is written to, as in VOLUME /data.",
                where=where,
            )


def _flattened(found: Instruction, where: str) -> Iterator[Finding]:
    for source in context_sources(found):
        if source.endswith("/*"):
            yield Finding(
                "warn",
                f"{where} copies {source}.",
                "COPY with a star copies the content of each matching directory without the "
                "directory itself, which flattens packages.",
                f"Use {source.removesuffix('*')} instead.",
                where=where,
            )


def engine(patient: DoctorContext) -> Iterator[Finding]:
    """The engine of a build; only asked if there is something to build."""
    if not _dockerfiles(patient):
        return
    docker = Docker.from_environment()
    try:
        version = docker.ask("version", "--format", "{{.Server.Version}}")
    except ToolFailed as error:
        why = "build docker needs an engine; build oci works without one."
        yield Finding("warn", error.what, why, error.hint or "Run docker version for details.")
        return
    yield Finding("ok", f"Engine {version} at {docker.host}.")
    yield from without_buildkit(patient, lambda: detect(docker))


def without_buildkit(patient: DoctorContext, detected: Callable[[], Builder]) -> Iterator[Finding]:
    """Instructions that the classic builder rejects, if a build would use it."""
    for name, text in _dockerfiles(patient):
        modern = needing_buildkit(text)
        if modern is None:
            continue
        builder = detected()
        if not builder.is_buildkit:
            yield Finding(
                "fail",
                f"{name}:{modern.line} requires BuildKit, which {builder} does not have.",
                "The build would fail at that instruction, after the refresh.",
                "Install the docker-buildx plugin; up to Docker 22, DOCKER_BUILDKIT=1 is enough.",
                where=f"{name}:{modern.line}",
            )
        return
