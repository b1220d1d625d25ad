"""Finds mounts in Compose files that hide the code, and with it the state in the image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.artifacts.image.engine.dockerfile import copied_paths, instructions
from bundler.artifacts.image.image_program import expanded
from bundler.project.config import pyproject_of, table
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.code_in_image import hides, state_in_image, working_directories
from bundler.setup.init.images import arguments_of, read_yaml
from bundler.system.reading import scanned

_NAMES = ("compose*.y*ml", "docker-compose*.y*ml", "*.compose.y*ml")
_FIX = (
    "Remove that mount where the image is deployed. For development, put it into another "
    "file, such as compose.dev.yaml, which only `docker compose -f` names."
)
# Files that only `docker compose -f` reads, and whose name says what for.
_DEVELOPMENT = re.compile(r"(?i)\b(dev|develop|development|devcontainer|local|test|debug|watch)\b")


@dataclass(frozen=True)
class Mount:
    """source: on this machine; None for what has no path here. target: in the container."""

    kind: str
    source: Path | None
    target: str

    def described(self, root: Path) -> str:
        shown = self.source and os.path.relpath(self.source, root)
        done = f"mounts {shown}" if shown else f"has a {self.kind}"
        return f"{done} over {self.target}, which hides"


def compose(patient: DoctorContext) -> Iterator[Finding]:
    """Each mount over the code of this project, in the files here and above in the repository."""
    _ = patient.project.config  # what is wrong with it is no file's fault
    for file in _files(patient):
        name = os.path.relpath(file, patient.survey.root)
        try:
            found = list(_of_file(patient, file, name))
        except (ValueError, OSError) as error:
            found = [Finding("warn", f"{name} cannot be read: {error}")]
        yield from (replace(finding, where=name) for finding in found)


def _of_file(patient: DoctorContext, file: Path, name: str) -> Iterator[Finding]:
    first = next(file.parent.glob("compose.y*ml"), None)
    first = first or next(file.parent.glob("docker-compose.y*ml"), file)
    below = table(read_yaml(first), "services")
    for service, declared in table(read_yaml(file), "services").items():
        if isinstance(declared, Mapping):
            build = declared.get("build") or table(below, service).get("build")
            profiles = declared.get("profiles")
            when = f" (profile {profiles[0]})" if isinstance(profiles, list) and profiles else ""
            said = f"{name}: the service {service}{when}"
            yield from _of_service(patient, said, file, build, _mounts(declared, file.parent))


def _files(patient: DoctorContext) -> list[Path]:
    root, outer = patient.survey.root, patient.survey.outer
    folders = [path for path in (root, *root.parents) if path.is_relative_to(outer)]
    found = (file for folder in folders for name in _NAMES for file in sorted(folder.glob(name)))
    return list(dict.fromkeys(file for file in found if file.is_file()))


def _of_service(
    patient: DoctorContext, name: str, file: Path, build: Any, mounts: Iterable[Mount]
) -> Iterator[Finding]:
    """build: what says how the service's image is built; None for an image from elsewhere."""
    survey = patient.survey
    states = [survey.root / path for path in survey.state_directories]
    places = _places(patient, file.parent, build)
    is_development = _DEVELOPMENT.search(file.stem.replace("_", " "))
    for mount in mounts if places is not None else ():
        covers = any(mount.source and state.is_relative_to(mount.source) for state in states)
        if any(hides(mount.target, place) for place in places or ()) or (covers and not places):
            what = f"{name} {mount.described(survey.root)} the state in the image"
            if is_development:
                yield Finding("ok", f"{what}. Its file is for development.")
            else:
                yield Finding("warn", f"{what}.", _why(mount), _FIX)


def _why(mount: Mount) -> str:
    if mount.source is not None:
        return (
            "The container sees this machine's folder: the state that is there, or none, whatever "
            "was embedded and verified."
        )
    if mount.kind == "tmpfs":
        return "It is empty at each start."
    return "It keeps what the first container had: the state of a new image is not seen."


def _places(patient: DoctorContext, folder: Path, build: Any) -> tuple[str, ...] | None:
    """Where the service's image has the state, empty if that is not known; None for another image.

    A service that builds nothing may run the image that is built of this project.
    """
    survey = patient.survey
    declared = build if isinstance(build, Mapping) else {"context": build or "."}
    if build is None:
        context, dockerfiles = survey.root, [survey.root / path for path in survey.dockerfiles]
    else:
        context = (folder / _resolved(str(declared.get("context", ".")))).resolve()
        dockerfiles = [context / _resolved(str(declared.get("dockerfile", "Dockerfile")))]
        owner = _project_of(dockerfiles[0].resolve(), context)
        if not survey.root.is_relative_to(context) or not survey.root.is_relative_to(owner):
            return None
    states = [
        PurePosixPath((survey.root / path).relative_to(context).as_posix())
        for path in survey.state_directories
    ]
    image_path = patient.project.config.image_path
    places = [image_path] if image_path else []
    given = arguments_of(declared.get("args"))
    arguments = {name: _resolved(value) for name, value in given if value}
    for dockerfile in dockerfiles:
        text = scanned(dockerfile)
        found = list(instructions(text))
        known = state_in_image(found, states, arguments)
        # An image that only gets other folders is another program's.
        is_unknown = build is not None and not any(copied_paths(text, arguments))
        places += known or (working_directories(found) if is_unknown else ())
    return tuple(places)


def _project_of(dockerfile: Path, context: Path) -> Path:
    """The project whose folder has the Dockerfile; the context if no project has it."""
    above = (path for path in dockerfile.parents if path.is_relative_to(context))
    return next((path for path in above if pyproject_of(path).exists()), context)


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
        is_bind = kind == "bind" and path
        here = (folder / os.path.expanduser(path)).resolve() if is_bind else None
        yield Mount(kind, here, _resolved(target))
    temporary = service.get("tmpfs")
    temporary = [temporary] if isinstance(temporary, str) else temporary
    for target in temporary if isinstance(temporary, list) else ():
        yield Mount("tmpfs", None, str(target).partition(":")[0])


def _resolved(text: str) -> str:
    """With the defaults of its variables; what the shell or ``.env`` sets goes before them."""
    return expanded(text, os.environ)
