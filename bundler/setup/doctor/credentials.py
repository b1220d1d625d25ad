"""Checks the variables that the components need, and finds secrets that are too short to
recognise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from bundler.errors import BundlerError
from bundler.project.projects import Project
from bundler.refresh import declared_variables
from bundler.refresh.secret_values import collect
from bundler.refresh.sources import no_dagster
from bundler.refresh.surroundings import from_dotenv
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import set_in_pyproject


def credentials(patient: DoctorContext) -> Iterator[Finding]:
    """Whether the declared variables are set, and whether ``.env`` can be protected."""
    project = patient.project
    from_file = from_dotenv(project)
    named = declared_variables.named_in(patient.survey.root)
    unset = declared_variables.unset(named, from_file)
    findings = [*_unset(unset, patient), *_short(project, from_file)]
    yield from findings or [Finding("ok", _summary(len(named), from_file))]


def _summary(count: int, from_file: Mapping[str, str]) -> str:
    told = "No declaration references an environment variable"
    if count:
        told = f"All variables that declarations reference are set ({count})"
    return f"{told}; .env sets {len(from_file)}." if from_file else f"{told}; there is no .env."


def _unset(unset: Mapping[str, Sequence[str]], patient: DoctorContext) -> Iterator[Finding]:
    """The effect of an unset variable is known once the components are loaded."""
    try:
        found = patient.looked().found
    except BundlerError as error:
        yield from _unset_and_not_loaded(unset, error, patient.project)
        return
    keys = {one.location: one.key for source in found for one in source.components}
    for name, files in sorted(unset.items()):
        with_state = [file for file in files if file in keys]
        if with_state:
            yield Finding(
                "warn",
                f"{with_state[0]} references {name}, which is not set.",
                f"{keys[with_state[0]]} loads without it, and is refreshed without it: "
                "state-bundler doctor --reach shows whether its system accepts that.",
                f"Export {name}, or set it in .env.",
                where=with_state[0],
            )
        else:
            yield Finding(
                "ok",
                f"{files[0]} references {name}, which is not set. No component there has state, so "
                "no refresh needs it.",
            )


def _unset_and_not_loaded(
    unset: Mapping[str, Sequence[str]], error: BundlerError, project: Project
) -> Iterator[Finding]:
    why = "The components cannot be loaded, and this may be the reason."
    if error.what == no_dagster(project.interpreter.path, project):
        why = "Which of them a refresh needs is only known once the components are loaded."
    others = []
    for name, files in sorted(unset.items()):
        if re.search(rf"\b{re.escape(name)}\b", error.what) is None:
            others.append(name)
            continue
        yield Finding(
            "fail",
            f"{files[0]} references {name}, which is not set.",
            "The components cannot be loaded without it, so nothing can be refreshed.",
            f"Export {name}, or set it in .env.",
            where=files[0],
        )
    if others:
        what = f"Declarations reference variables that are not set: {', '.join(others)}."
        yield Finding("warn", what, why, "Export them, or set them in .env.")


def _short(project: Project, from_file: Mapping[str, str]) -> Iterator[Finding]:
    """Secrets that are too short: their value would occur everywhere by chance."""
    excluded = project.config.refresh.not_secrets
    for name, value in sorted(from_file.items()):
        long = collect({name: value * 8}, excluded=excluded)
        if value and long.values and not collect({name: value}, excluded=excluded).values:
            yield Finding(
                "warn",
                f"{name} in .env is named like a secret but is too short to be searched for.",
                "A build fails if a state contains a secret, but a value of fewer than 8 bytes "
                "matches by chance. Use a longer value, or list the variable in not-secrets.",
                set_in_pyproject(("tool", "state-bundler", "not-secrets"), [*excluded, name]),
                where=".env",
            )
