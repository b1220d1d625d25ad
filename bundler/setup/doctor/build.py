"""Checks what a build relies on: the place, the baseline, the store, the programs."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.artifacts.python import credentials
from bundler.artifacts.python.credentials import AllowedFiles
from bundler.artifacts.python.pex.building import find_pex, refuse_old
from bundler.errors import BundlerError, ToolFailed
from bundler.project.config import Config, load
from bundler.project.layout import import_path
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import set_in_pyproject
from bundler.state.bundle import MANIFEST_NAME
from bundler.system.wording import counted
from bundler.workflows.status import of_artifact

# Names of artifacts that may have to be looked up in a registry or a store.
_ELSEWHERE = ("image", "registry", "store")


def build(patient: DoctorContext) -> Iterator[Finding]:
    """Each of them, and where it was configured."""
    config = load(patient.survey.root)
    yield from _place(patient, config)
    yield _baseline(patient, config)
    if config.store:
        yield Finding("ok", "Versioned keys come from the store that `store` configures.")
    if patient.makes_wheels:
        yield _pex(patient)
        yield from _packaged(patient, config)


def _place(patient: DoctorContext, config: Config) -> Iterator[Finding]:
    if config.image_path is None:
        yield Finding("ok", "Path in an image: where its Python imports the defs module.")
    elif not config.image_path.startswith("/"):
        yield Finding(
            "fail",
            f"image-path is {config.image_path!r}, which is not absolute.",
            "A build rejects it.",
            set_in_pyproject(("tool", "state-bundler", "image-path"), f"/app/{config.image_path}"),
            where="pyproject.toml",
        )
    elif len(patient.survey.state_directories) > 1:
        yield Finding(
            "fail",
            f"image-path is {config.image_path}, but there are several state directories.",
            "All of them would have the same path.",
            "Remove image-path; each source can have its own `place`.",
            where="pyproject.toml",
        )
    else:
        yield Finding("ok", f"Path in an image: {config.image_path}, from image-path.")


def _baseline(patient: DoctorContext, config: Config) -> Finding:
    """The configured baseline, else what is published here."""
    named = config.refresh.baseline
    if named is None:
        published = [
            str(path)
            for path in patient.survey.state_directories
            if (patient.survey.root / path / MANIFEST_NAME).exists()
        ]
        where = " and ".join(published) or "none, so a shrunk state is not detected"
        return Finding("ok", f"Baseline: {where}.")
    try:
        name = ArtifactName.parse(named)
        if name.kind in _ELSEWHERE and not patient.reaches:
            return Finding("ok", f"Baseline: {named}, from the configuration. It was not read.")
        with open_artifact(name) as artifact:
            holder = of_artifact(artifact)
    except BundlerError as error:
        return Finding(
            "fail",
            f"The baseline {named} cannot be read: {error.what}",
            "Every refresh would fail with this error before it fetches anything.",
            error.hint or "Set another baseline in [tool.state-bundler], or none.",
        )
    keys = counted(len(holder.keys), "key")
    return Finding("ok", f"Baseline: {holder.name} with {keys}, from the configuration.")


def _pex(patient: DoctorContext) -> Finding:
    try:
        command = find_pex(patient.project.interpreter.path)
    except ToolFailed as error:
        return Finding("ok", f"build pex cannot find pex; {error.hint}")
    try:
        refuse_old(command)
    except ToolFailed as error:
        return Finding("warn", error.what, "build pex would fail.", error.hint or "")
    return Finding("ok", f"build pex will run {command}.")


def _packaged(patient: DoctorContext, config: Config) -> Iterator[Finding]:
    """Credentials in the folders that go into a PEX or a wheel."""
    root = patient.survey.root
    tops = {path.parts[0] for path in patient.survey.state_directories if len(path.parts) > 1}
    allowed = AllowedFiles(config.credential_files)
    for top in sorted(tops):
        for path in credentials.below(root / top):
            imported = import_path(f"{top}/{path}".split("/"))
            if not allowed.names(imported):
                yield Finding(
                    "warn",
                    f"{top}/{path} contains credentials, and may be packed into a PEX or a wheel.",
                    "build pex and build wheel refuse an artifact that contains it.",
                    f"Move it out of {top}, or, if it may be public, name it in "
                    f"{credentials.SETTING}.",
                )
