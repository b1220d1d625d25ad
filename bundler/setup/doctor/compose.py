"""Compose files that mount something over the code: then the state in the image is not seen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.artifacts.image.engine.dockerfile import instructions
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.code_in_image import hides, state_in_image, working_directories
from bundler.system.text_files import scanned

_NAMES = ("compose*.y*ml", "docker-compose*.y*ml", "*.compose.y*ml")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?[-=?+]([^}]*))?\}|(\w+))")
_FIX = (
    "Remove that mount where the image is deployed. For development, put it into another "
    "file, which only `docker compose -f` names."
)


@dataclass(frozen=True)
class Mount:
    """source: on this machine; None for what has no path here. target: in the container."""

    kind: str
    source: Path | None
    target: str


def compose(patient: DoctorContext) -> Iterator[Finding]:
    """Each mount over the code of this project, in the files here and above in the repository."""
    for file in _files(patient):
        name = os.path.relpath(file, patient.survey.root)
        try:
            found = list(_of_file(patient, file, name))
        except (ValueError, OSError) as error:
            found = [Finding("warn", f"{name} cannot be read: {error}")]
        yield from found


def _of_file(patient: DoctorContext, file: Path, name: str) -> Iterator[Finding]:
    services = _load(file).get("services")
    for service, table in services.items() if isinstance(services, Mapping) else ():
        if isinstance(table, Mapping):
            yield from _of_service(patient, file, f"{name}: the service {service}", table)


def _files(patient: DoctorContext) -> list[Path]:
    root, outer = patient.survey.root, patient.survey.outer
    folders = [path for path in (root, *root.parents) if path.is_relative_to(outer)]
    found = (file for folder in folders for name in _NAMES for file in sorted(folder.glob(name)))
    return list(dict.fromkeys(file for file in found if file.is_file()))


def _load(file: Path) -> Mapping[str, Any]:
    """Raises `ValueError` with why it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # With the tags of Compose, such as `!override`.
        document = YAML(typ="rt", pure=True).load(scanned(file))
    except YAMLError as error:
        raise ValueError(str(getattr(error, "problem", None) or "it is not YAML")) from error
    return document if isinstance(document, Mapping) else {}


def _of_service(
    patient: DoctorContext, file: Path, name: str, service: Mapping[str, Any]
) -> Iterator[Finding]:
    survey = patient.survey
    states = [survey.root / path for path in survey.state_directories]
    places = _places(patient, file, service)
    for mount in _mounts(service, file.parent) if places is not None else ():
        covers = any(mount.source and state.is_relative_to(mount.source) for state in states)
        if any(hides(mount.target, place) for place in places or ()) or (covers and not places):
            shown = mount.source and os.path.relpath(mount.source, survey.root)
            what = f"mounts {shown}" if shown else f"has a {mount.kind}"
            yield Finding(
                "warn",
                f"{name} {what} over {mount.target}, which hides the state in the image.",
                _why(mount),
                _FIX,
            )


def _why(mount: Mount) -> str:
    if mount.source is not None:
        return (
            "The container sees this machine's folder: the state that is there, or none, whatever "
            "was embedded and verified."
        )
    if mount.kind == "tmpfs":
        return "It is empty at each start."
    return "It keeps what the first container had: the state of a new image is not seen."


def _places(
    patient: DoctorContext, file: Path, service: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """Where the service's image has the state, empty if that is not known; None for another image.

    A service that builds nothing may run the image that is built of this project.
    """
    survey, build = patient.survey, service.get("build")
    table = build if isinstance(build, Mapping) else {"context": build or "."}
    if build is None:
        context, dockerfiles = survey.root, [survey.root / path for path in survey.dockerfiles]
    else:
        context = (file.parent / _resolved(str(table.get("context", ".")))).resolve()
        dockerfiles = [context / _resolved(str(table.get("dockerfile", "Dockerfile")))]
        owner = _project_of(dockerfiles[0].resolve(), context)
        if not survey.root.is_relative_to(context) or not survey.root.is_relative_to(owner):
            return None
    states = [
        PurePosixPath((survey.root / path).relative_to(context).as_posix())
        for path in survey.state_directories
    ]
    image_path = patient.project.config.image_path
    places = [image_path] if image_path else []
    for dockerfile in dockerfiles:
        found = list(instructions(scanned(dockerfile)))
        known = state_in_image(found, states, _arguments(table))
        places += known or (working_directories(found) if build is not None else ())
    return tuple(places)


def _project_of(dockerfile: Path, context: Path) -> Path:
    """The project whose folder has the Dockerfile; the context if no project has it."""
    above = (path for path in dockerfile.parents if path.is_relative_to(context))
    return next((path for path in above if (path / "pyproject.toml").exists()), context)


def _arguments(build: Mapping[str, Any]) -> dict[str, str]:
    given = build.get("args") or {}
    if isinstance(given, Mapping):
        return {str(name): _resolved(str(value)) for name, value in given.items() if value}
    pairs = (str(item).partition("=") for item in (given if isinstance(given, list) else ()))
    return {name: _resolved(value) for name, _, value in pairs if value}


def _mounts(service: Mapping[str, Any], folder: Path) -> Iterator[Mount]:
    volumes = service.get("volumes")
    for volume in volumes if isinstance(volumes, list) else ():
        if isinstance(volume, Mapping):
            kind, source = str(volume.get("type", "volume")), volume.get("source")
            target = str(volume.get("target", ""))
        else:
            first, _, rest = _resolved(str(volume)).partition(":")
            source, target = (first, rest.partition(":")[0]) if rest else (None, first)
            kind = "bind" if source and source.startswith((".", "/", "~")) else "volume"
        path = _resolved(str(source or ""))
        is_bind = kind == "bind"
        here = (folder / os.path.expanduser(path)).resolve() if is_bind and path else None
        yield Mount(kind, here, _resolved(target))
    temporary = service.get("tmpfs")
    temporary = [temporary] if isinstance(temporary, str) else temporary
    for target in temporary if isinstance(temporary, list) else ():
        yield Mount("tmpfs", None, str(target).partition(":")[0])


def _resolved(text: str) -> str:
    """With the defaults of its variables; what the shell or ``.env`` sets goes before them."""
    return _VARIABLE.sub(
        lambda found: os.environ.get(found[1] or found[3]) or found[2] or found[0], text
    )
