"""What would keep the state out of an image, or make it old there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bundler.bundle import STATE_DIRECTORY
from bundler.dockerfile import IgnoreRules, Instruction, instructions
from bundler.doctor import Finding, Patient
from bundler.edits import read_text

_REFRESH = re.compile(
    r"refresh-defs-state|state-bundler\s+refresh|dbt\s+(?:\S+\s+)*?(?:parse|compile)\b"
    r"|prepare-and-package"
)
_FORGIVEN = re.compile(r"\|\|\s*(?:true|:|echo)")
_PROJECT_FILES = ("pyproject.toml", "dg.toml")


def context(patient: Patient) -> Iterator[Finding]:
    """What goes to the engine with the build."""
    survey = patient.survey
    if not survey.dockerfiles:
        yield Finding("ok", "There is no Dockerfile here.")
        return
    rules = IgnoreRules(read_text(survey.root / ".dockerignore") or "")
    findings = [
        *_missing_project_file(patient, rules),
        *_state_in_context(patient, rules),
        *_secrets_in_context(patient, rules),
    ]
    yield from findings or [Finding("ok", "The context holds the code, and no state.")]


def _missing_project_file(patient: Patient, rules: IgnoreRules) -> Iterator[Finding]:
    for name in _PROJECT_FILES if patient.survey.dagster else ():
        if (patient.survey.root / name).exists() and rules.ignores(name):
            yield Finding(
                "fail",
                f".dockerignore leaves {name} out of the image.",
                "Dagster finds the project, and with it the state, by that file.",
                f".dockerignore, at its end: !{name}",
            )


def _state_in_context(patient: Patient, rules: IgnoreRules) -> Iterator[Finding]:
    for directory in patient.survey.state_directories:
        if not rules.ignores(f"{directory}/state"):
            yield Finding(
                "warn",
                f".dockerignore does not name {directory}.",
                "New state invalidates the cached layers of the code, and a copy gets into the "
                "image that nobody has verified.",
                f".dockerignore: **/{STATE_DIRECTORY}",
                "dockerignore",
            )


def _secrets_in_context(patient: Patient, rules: IgnoreRules) -> Iterator[Finding]:
    if (patient.survey.root / ".env").exists() and not rules.ignores(".env"):
        yield Finding(
            "warn",
            ".dockerignore does not name .env.",
            "COPY . and ADD . put its credentials into a layer, where they stay.",
            ".dockerignore: **/.env",
        )


def dockerfiles(patient: Patient) -> Iterator[Finding]:
    """Instructions that defeat the state."""
    found = False
    for name in patient.survey.dockerfiles:
        for instruction in instructions(read_text(patient.survey.root / name) or ""):
            for finding in _judge(f"{name}:{instruction.line}", instruction):
                found = True
                yield finding
    if patient.survey.dockerfiles and not found:
        names = ", ".join(map(str, patient.survey.dockerfiles))
        yield Finding("ok", f"{names}: no instruction refreshes or copies state.")


def _judge(where: str, instruction: Instruction) -> Iterator[Finding]:
    if instruction.word == "RUN":
        yield from _refreshes(where, f"{instruction.arguments}\n{instruction.body}")
    if instruction.word in ("COPY", "ADD") and "from" not in instruction.flags:
        sources = instruction.operands[:-1]
        if any(STATE_DIRECTORY in source for source in sources):
            yield Finding(
                "fail",
                f"{where}: {instruction.word} names the state directory.",
                "The state stays out of the context, so that new state does not spoil the cache: "
                "this instruction finds nothing there.",
                "Remove the instruction: build docker embeds the state itself.",
            )


def _refreshes(where: str, command: str) -> Iterator[Finding]:
    match = _REFRESH.search(command)
    if match is None:
        return
    why = "The layer is cached: the next build keeps the old state, with the API down, too."
    if _FORGIVEN.search(command[match.end() :]):
        why += " And where it fails, the build goes on with whatever is there."
    yield Finding(
        "warn",
        f"{where}: RUN makes state inside the image ({match.group(0)}).",
        why,
        "Remove it: build docker refreshes beforehand, outside.",
    )
