"""Configures a project by the fewest changes: planned from a survey, shown, written on yes.

A *part* is one change to one file. It adds nothing that is there already in any form, so that a
second run changes nothing, and it can find what it added, so that it can be taken back; what a
user wrote or changed since stays as it is.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.image.engine.ignore import excluded, parse, quoted
from bundler.artifacts.image.engine.left_out import Names, find
from bundler.errors import ConfigurationError
from bundler.guard.fixes import rule_for
from bundler.project.config import Config, load, pyproject_of, table
from bundler.project.projects import projects_below, required_members
from bundler.project.source_paths import refuse_shared
from bundler.project.stateful import has_state
from bundler.project.survey import Survey, Together, survey
from bundler.setup.file_edits import FileEdit, read_text
from bundler.setup.init import lines, precommit, pyproject, workflow
from bundler.setup.init.images import WORKFLOW, image_source
from bundler.state.bundle import STATE_DIRECTORY
from bundler.system.credential_files import has_credentials_name
from bundler.system.reading import scanned

_IGNORE_COMMENT = (
    "state-bundler init: state ships in the artifact and is not part of the repository"
)
_DOCKER_COMMENT = (
    "state-bundler init: embedded after the build, so that it never invalidates the cache"
)
_HERE_COMMENT = "state-bundler init: credentials and the local environment stay out of images"

# Like credentials, not part of an image.
_ENVIRONMENT = ".venv"
# What most projects get later, written before they have it, or a Dockerfile.
_USUAL = (
    *(".git", ".env", ".env.*", ".envrc", ".netrc", ".pypirc", ".aws", ".ssh", "id_rsa"),
    *("id_ed25519", _ENVIRONMENT),
)

Change = Callable[[str | None, Survey], "str | None"]


@dataclass(frozen=True)
class Part:
    """name: for ``--without``. file: None if the part does not apply to this project. add,
    remove: from the file's text (None: no file) to its new text. why: a message."""

    name: str
    file: Callable[[Survey], Path | None]
    add: Change
    remove: Change
    why: str


def chosen(root: Path, *, registry: str = "") -> list[Survey]:
    """The projects that `init` configures from a folder: the one that is here and those that its
    workspace names, or those below.

    Of several, those with state. None if there are projects and no state. Raises
    `ConfigurationError` for projects of repositories below the folder.
    """
    root = root.resolve()
    here = survey(root)
    is_project = here.dagster is not None or bool(here.state_directories)
    members = required_members(root)
    is_alone = is_project or (not members and "state-bundler" in table(here.pyproject, "tool"))
    below = members if is_alone else [*members, *projects_below(root)]
    found = [path for path in dict.fromkeys(below) if has_state(survey(path))]
    if is_project or not below:
        found = list(dict.fromkeys([here.classic_dbt.home if here.classic_dbt else root, *found]))
    together = Together(root, tuple(found), registry)
    surveys = [survey(path, together) for path in found]
    _refuse_repositories_below(root, surveys)
    return surveys


def _refuse_repositories_below(root: Path, surveys: Sequence[Survey]) -> None:
    """The projects' common configuration is written to one repository."""
    outers = {each.repository for each in surveys if each.repository is not None}
    below = sorted(outer for outer in outers if not root.is_relative_to(outer))
    if below:
        raise ConfigurationError(
            f"{root} has projects in repositories below it: "
            f"{', '.join(str(outer.relative_to(root)) for outer in below)}.",
            hint="Run init in each of them.",
        )


def plan(*surveys: Survey, without: Sequence[str] = (), remove: bool = False) -> list[FileEdit]:
    """The edits that configure projects, or that take this back; none where all is done.

    Raises `ConfigurationError` for a state directory that others use: rules for it would hide their
    files.
    """
    parts = [part for part in PARTS if part.name not in without]
    return plan_parts([(each, parts) for each in surveys], remove=remove)


def plan_parts(
    wanted: Iterable[tuple[Survey, Sequence[Part]]], *, remove: bool = False
) -> list[FileEdit]:
    """The edits of some parts, for each project its own; see `plan`."""
    texts: dict[Path, str | None] = {}
    reasons: dict[Path, list[str]] = {}
    before: dict[Path, str | None] = {}
    within: dict[Path, Path] = {}
    for each, parts in wanted:
        if not remove:
            refuse_shared(_config(each), each.dagster)
        for part in parts:
            file = part.file(each)
            if file is None:
                continue
            if file not in texts:
                before[file] = texts[file] = read_text(file)
                within[file] = each.outer
            changed = (part.remove if remove else part.add)(texts[file], each)
            if changed != texts[file]:
                texts[file] = changed
                said = reasons.setdefault(file, [])
                said += [part.why] if part.why not in said else []
    return [
        FileEdit(file, before[file], texts[file], tuple(reasons[file]), within[file])
        for file in reasons
    ]


def _config(survey: Survey) -> Config:
    """The configuration; if it cannot be read, `doctor` says why."""
    try:
        return load(survey.root)
    except ConfigurationError:
        return Config(pyproject_of(survey.root))


# --- the parts ------------------------------------------------------------------------------


def ignore_patterns(survey: Survey) -> tuple[str, ...]:
    """Rules that keep the project's state directories out of the repository.

    Without a slash at the end: such a rule would not match a link.
    """
    return _rules_in(survey.together.root, survey)


def _rules_in(folder: Path, survey: Survey) -> tuple[str, ...]:
    """The same, for the ignore file of a folder."""
    paths = (survey.root.relative_to(folder) / path for path in survey.state_directories)
    rules = (rule_for(os.fsencode(path)) for path in paths)
    return tuple(dict.fromkeys(map(os.fsdecode, rules)))


def docker_patterns(survey: Survey) -> tuple[str, ...]:
    """Rules that keep the project's state directories out of a build's context."""
    paths = (
        STATE_DIRECTORY if path.name == STATE_DIRECTORY else str(path)
        for path in survey.state_directories
    )
    return tuple(dict.fromkeys(f"**/{quoted(path)}" for path in paths))


def _dockerignored(text: str | None, survey: Survey) -> str | None:
    text = lines.add_block(text, _HERE_COMMENT, _local_patterns(text or "", survey))
    return lines.add_block(text, _DOCKER_COMMENT, docker_patterns(survey))


def _local_patterns(ignored: str, survey: Survey) -> list[str]:
    """Rules for what stays on this machine, except what a Dockerfile or the file itself names."""
    image = image_source(survey)
    files = [survey.root / path for path in survey.dockerfiles]
    files += [image.dockerfile] if image.dockerfile else []
    text = "\n".join(map(scanned, dict.fromkeys(files)))
    names, rules = Names.of(text, "", ignored, {}), parse(ignored)
    usual = [
        f"**/{name}"
        for name in _USUAL
        if not all(excluded(f"{above}{name}", rules) for above in ("", "x/"))
        and not names.meets(f"**/{name}")
    ]
    found = find(image.context, "\n".join([ignored, *usual]), names)
    there = (f"**/{quoted(posixpath.basename(path))}" for path in found.credentials)
    return list(dict.fromkeys([*usual, *there]))


def _not_dockerignored(text: str | None, survey: Survey) -> str | None:
    text = lines.remove_block(text, _DOCKER_COMMENT, docker_patterns(survey))
    ours = [line.strip() for line in (text or "").splitlines() if _stays_here(line.strip())]
    return lines.remove_block(text, _HERE_COMMENT, ours)


def _stays_here(rule: str) -> bool:
    name = rule.removeprefix("**/")
    return rule != name and (name in _USUAL or has_credentials_name(name))


def _pyproject(survey: Survey) -> Path | None:
    return pyproject_of(survey.root) if survey.pyproject or survey.classic_dbt else None


def _gitignore(survey: Survey) -> Path | None:
    """The ignore file of what is configured, unless one above it already has the rules."""
    root = survey.together.root
    for folder in (path for path in root.parents if path.is_relative_to(survey.outer)):
        there = scanned(folder / ".gitignore").splitlines()
        if all(lines.present(rule, there) for rule in _rules_in(folder, survey)):
            return None
    return root / ".gitignore" if survey.state_directories else None


def _dockerignore(survey: Survey) -> Path | None:
    """Even before there is a Dockerfile: its first build would copy everything."""
    if not survey.state_directories and not survey.dockerfiles:
        return None
    return image_source(survey).ignore_file


def _pre_commit(survey: Survey) -> Path | None:
    return None if survey.repository is None else survey.outer / ".pre-commit-config.yaml"


def _workflow(survey: Survey) -> Path | None:
    """Once there is state to ship: an empty workflow would stay when a source is written, and
    the images of a project without state have none to verify."""
    github = survey.outer / ".github"
    if not github.is_dir() or not (survey.classic_dbt or has_state(survey)):
        return None
    return github / "workflows" / WORKFLOW


PARTS: Sequence[Part] = (
    Part(
        "table",
        _pyproject,
        pyproject.add_table,
        pyproject.remove_table,
        "adds a table for the settings of state-bundler",
    ),
    Part(
        "backend",
        _pyproject,
        pyproject.add_backend_list,
        pyproject.remove_backend_list,
        "the build backend excludes git-ignored files; without this, a wheel has no state",
    ),
    Part(
        "ignore",
        _gitignore,
        lambda text, survey: lines.add_block(text, _IGNORE_COMMENT, ignore_patterns(survey)),
        lambda text, survey: lines.remove_block(text, _IGNORE_COMMENT, ignore_patterns(survey)),
        "ignores state in every clone; Dagster's own rule only exists where a refresh ran",
    ),
    Part(
        "dockerignore",
        _dockerignore,
        _dockerignored,
        _not_dockerignored,
        "keeps unverified state and local files out of the image",
    ),
    Part(
        "pre-commit",
        _pre_commit,
        lambda text, _: precommit.add_entry(text),
        lambda text, _: precommit.remove_entry(text),
        "rejects commits that contain state",
    ),
    Part(
        "ci",
        _workflow,
        workflow.add,
        workflow.remove,
        "a workflow that checks every push and builds the images of the default branch",
    ),
)
