"""The workflow for GitHub: the guard at every push, and on the default branch what ships the state.

It names how this repository builds: each project with state has an entry of a matrix, with its own
Dockerfile, context and name. What no Dockerfile ships is a PEX that Pants packages, or a wheel.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.git.repository import Question, open_repository
from bundler.project.classic_dbt import files
from bundler.project.environment_tools import tool_of
from bundler.project.projects import project_name
from bundler.project.survey import Survey, survey
from bundler.setup.init.images import DeclaredBuild, build_of, builds_in
from bundler.system.installed import installed
from bundler.system.packaged_files import template
from bundler.system.reading import scanned

_WRITTEN = re.compile(r"(?m)^# Images whose name is not declared go to (.+)\.$")
_CODE_IMAGE = "state-bundler/code"
_GITHUB = re.compile(r"github\.com[:/]([\w.-]+)/")
# Variables that the code needs: those with a default are no secrets that somebody has to set.
_NEEDED = re.compile(
    r"(?<!del )(?<!del os\.)environ\[[\"']([A-Z][A-Z0-9_]+)[\"']\]|"
    r"EnvVar\(\s*[\"']([A-Z][A-Z0-9_]+)[\"']"
    r"|\benv\.([A-Z][A-Z0-9_]+)|\benv\([\"']([A-Z][A-Z0-9_]+)[\"']\)"
)
_ASSIGNED = re.compile(
    r"environ(?:\[|\.setdefault\(\s*)[\"']([A-Z][A-Z0-9_]+)[\"'](?:\]\s*=(?!=)|\s*,)"
)
# What every process or every job has. GitHub gives its token only to steps that name it.
_AMBIENT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|LANG|LANGUAGE|LC_\w+|PWD|OLDPWD|HOSTNAME|TMPDIR|TMP|TEMP"
    r"|PYTHON\w*|VIRTUAL_ENV|XDG_\w+|GITHUB_(?!TOKEN$)\w+|RUNNER_\w+|CI|DAGSTER_\w+"
)
# Where pixi has an environment, as a Dockerfile names it; the command that makes one.
_PIXI_ENVIRONMENT = re.compile(r"[\w./-]*\.pixi/envs/[\w-]+")
_PIXI_INSTALL = re.compile(
    r"\bpixi install\b(?:[^\n&;]*?\s(?:-e|--environment)[ =]([\w-]+))?", re.ASCII
)
_PEX = re.compile(r"pex_binary\((?:[^)]*?name\s*=\s*[\"']([\w.-]+)[\"'])?")
_INSTALL_HERE = 'run: uv tool install --quiet {words} && uv tool dir --bin >> "$GITHUB_PATH"\n'
# A copy that only this machine has.
_INSTALL_ELSEWHERE = """\
env:
          STATE_BUNDLER: ${{ vars.STATE_BUNDLER }} # such as a commit
        run: |
          command -v state-bundler && exit
          uv tool install --quiet "${STATE_BUNDLER:?set this variable to what to install}"
          uv tool dir --bin >> "$GITHUB_PATH"
"""


@dataclass(frozen=True)
class Shipped:
    """A project, and what ships its state: an image, or an artifact that a command makes."""

    survey: Survey
    build: DeclaredBuild | None = None
    pex: str = ""

    @property
    def project(self) -> str:
        return self.survey.root.relative_to(self.survey.outer).as_posix()


def add(text: str | None, survey: Survey) -> str | None:
    """The workflow, unless there is one."""
    return _written(survey, survey.together.registry) if text is None else text


def remove(text: str | None, survey: Survey) -> str | None:
    """None for a workflow that is unchanged."""
    if text is None:
        return None
    found = _WRITTEN.search(text)
    return None if text == _written(survey, found[1] if found else "") else text


def default_registry(repository: Path) -> str:
    """Where GitHub keeps the images of a repository: the owner's namespace."""
    opened = open_repository(repository)
    remotes = Question(["config", "--get-regexp", r"remote\..*\.url"], expected=(0, 1))
    answer = os.fsdecode(opened.ask(remotes)[0]) if opened else ""
    owner = _GITHUB.search(answer)
    return f"ghcr.io/{owner[1].lower() if owner else '${{ github.repository_owner }}'}"


def needs_registry(surveys: Sequence[Survey]) -> bool:
    """Whether no image name is declared."""
    return any(each.build is not None and not each.build.image for each in _shipped(surveys))


def _shipped(surveys: Sequence[Survey]) -> list[Shipped]:
    builds = builds_in(surveys[0].outer) if surveys else []
    found = []
    for each in surveys:
        build = build_of(each, builds)
        found.append(Shipped(each, build, "" if build else _pex(each)))
    return found


def _pex(survey: Survey) -> str:
    """The target of a PEX in the project's folder, where Pants builds."""
    if not any((path / "pants.toml").exists() for path in (survey.root, *survey.root.parents)):
        return ""
    found = _PEX.search(scanned(survey.root / "BUILD"))
    folder = survey.root.relative_to(survey.outer).as_posix()
    return f"{folder}:{found[1] or survey.root.name}" if found else ""


# --- the text -------------------------------------------------------------------------------


def _written(given: Survey, registry: str) -> str:
    surveys = [survey(path, given.together) for path in given.together.projects]
    registry = registry or default_registry(given.outer)
    shipped = _shipped(surveys)
    images = [(each, each.build) for each in shipped if each.build is not None]
    others = [each for each in shipped if each.build is None and (each.pex or each.survey.backend)]
    text = _part("github-workflow.yml")
    text += _part("github-images.yml") if images else ""
    text += _part("github-artifacts.yml") if others else ""
    values = {
        "registry": registry,
        "install": _install(),
        "guard": shlex.join(("state-bundler", "guard", *_source_directories(surveys))),
        "login": _login([build for _, build in images]),
        "images": _withheld(images)
        + _entries([_image(each, build, images, registry) for each, build in images]),
        "artifacts": _entries([_artifact(each) for each in others]),
        "tools": _tools(others),
        "environment": _environment(surveys),
    }
    for name, value in values.items():
        text = text.replace(f"{{{name}}}\n", value) if value.endswith("\n") or not value else text
        text = text.replace(f"{{{name}}}", value)
    return text


def _part(name: str) -> str:
    return template(name).read_text(encoding="utf-8")


def _install() -> str:
    found = installed()
    words = shlex.join([*found.index, found.requirement()])
    text = _INSTALL_HERE.replace("{words}", words) if found.is_portable else _INSTALL_ELSEWHERE
    return f"      - name: Install state-bundler\n        {text}"


def _source_directories(surveys: Sequence[Survey]) -> list[str]:
    """Those that the guard does not know by their name."""
    return [
        (each.root.relative_to(each.outer) / path).as_posix()
        for each in surveys
        for path in each.state_directories
        if each.dagster is None and each.root != each.outer
    ]


def _image(
    shipped: Shipped,
    build: DeclaredBuild,
    images: Sequence[tuple[Shipped, DeclaredBuild]],
    registry: str,
) -> dict[str, str]:
    """The matrix's entry: the name to push, and how to build it."""
    name = _image_name(shipped, build, registry)
    is_shared = [_image_name(*each, registry) for each in images].count(name) > 1
    prefix = f"{_slug(shipped.project)}-" if is_shared else ""
    words = shlex.join(build.words())
    prepare = _prepare(shipped.survey)
    code = f"docker build --quiet --tag {_CODE_IMAGE} {words}"
    return {
        "project": shlex.quote(shipped.project),
        "image": f"{name}:{prefix}${{{{ github.sha }}}}",
        "registry": _host(name),
        "prepare": prepare or code,
        "options": "" if prepare else f"--in {_CODE_IMAGE}{_in_python(shipped.survey, build)}",
        "build": words,
    }


def _image_name(shipped: Shipped, build: DeclaredBuild, registry: str) -> str:
    return build.image or f"{registry}/{_slug(project_name(shipped.survey.root))}"


def _in_python(survey: Survey, build: DeclaredBuild) -> str:
    """The option for an interpreter of pixi's, which is not on the PATH of the image."""
    text = scanned(survey.outer / build.dockerfile)
    named = _PIXI_ENVIRONMENT.findall(text)
    if not named and (installed := _PIXI_INSTALL.search(text)):
        named = [f".pixi/envs/{installed[1] or 'default'}"]
    return f" --in-python {named[-1]}/bin/python" if named else ""


def _withheld(images: Sequence[tuple[Shipped, DeclaredBuild]]) -> str:
    """A comment that names the build arguments that are not passed."""
    left_out = {
        name for _, build in images for name in build.withheld if name not in dict(build.arguments)
    }
    names = sorted(re.sub(r"\W", "?", name) for name in left_out)
    return (
        "          # Build arguments left out, because their name says that they are secret,\n"
        f"          # or their value is not known: {', '.join(names)}.\n"
        if names
        else ""
    )


def _artifact(shipped: Shipped) -> dict[str, str]:
    project = shlex.quote(shipped.project)
    prepare = _prepare(shipped.survey) or _made_by_its_tool(shipped.survey)
    if not shipped.pex:
        make = f"state-bundler build wheel --project {project} -o dist"
        return {"project": shipped.project, "prepare": prepare, "make": make, "file": "dist/*.whl"}
    folder, _, target = shipped.pex.partition(":")
    file = f"dist/{folder.replace('/', '.')}/{target}.pex"
    package = f"pants package {shlex.quote(shipped.pex)}"
    make = f"{package} && state-bundler update {shlex.quote(file)} --project {project}"
    return {"project": shipped.project, "prepare": prepare, "make": make, "file": file}


def _prepare(survey: Survey) -> str:
    """The commands that install the project in the repository's folder; empty if only its image
    has it."""
    project = shlex.quote(survey.root.relative_to(survey.outer).as_posix())
    tools = survey.pyproject.get("tool", {})
    others = "poetry" in tools or "pixi" in tools or (survey.root / "pixi.toml").exists()
    if "project" in survey.pyproject and not others:
        return f"uv sync --directory {project}"
    named = next(
        (
            folder / "requirements.txt"
            for folder in (survey.root, *survey.root.parents)
            if folder.is_relative_to(survey.outer) and (folder / "requirements.txt").exists()
        ),
        None,
    )
    if named is None:
        # Its source runs a program of its environment, which no image offers to `--in`.
        return _made_by_its_tool(survey) if survey.classic_dbt is not None else ""
    file = shlex.quote(named.relative_to(survey.outer).as_posix())
    return _installed(project, f"-r {file}")


def _made_by_its_tool(survey: Survey) -> str:
    """What makes the project's environment where `state-bundler` finds it."""
    tool = tool_of(survey.root)
    project = shlex.quote(survey.root.relative_to(survey.outer).as_posix())
    if tool is not None and tool.install.startswith("poetry "):
        return f"POETRY_VIRTUALENVS_IN_PROJECT=true uvx poetry install --directory {project}"
    if tool is not None and tool.install.startswith("pixi "):
        name = "pixi.toml" if (survey.root / "pixi.toml").exists() else "pyproject.toml"
        return f"pixi install --manifest-path {shlex.quote(posixpath.join(project, name))}"
    if survey.backend is not None:
        return _installed(project, f"-e {project}")
    return "true"


def _installed(project: str, what: str) -> str:
    """The commands that install something into a project's own environment."""
    return f"uv venv {project}/.venv && uv pip install --python {project}/.venv {what}"


def _login(builds: Sequence[DeclaredBuild]) -> str:
    """The login steps of the workflow that builds the images today, if they are the same for
    all; else a login with a user name."""
    login = builds[0].login if builds else ()
    if not login or any(build.login != login for build in builds):
        return _part("github-login.yml")
    from ruamel.yaml import YAML

    out = io.StringIO()
    yaml = YAML()
    yaml.width = 1000
    yaml.dump([dict(step) for step in login], out)
    return "".join(f"      {line}\n" for line in out.getvalue().splitlines())


def _environment(surveys: Sequence[Survey]) -> str:
    """The variables that the projects' code needs, each as a secret."""
    names = sorted({name for each in surveys for name in needed(each.root)})
    lines = [f"          {name}: ${{{{ secrets.{name} }}}}\n" for name in names]
    return "".join(["        env:\n", *lines]) if lines else ""


def needed(root: Path) -> set[str]:
    wanted = (".py", ".yaml", ".yml")
    texts = (scanned(path) for path in files(root) if path.suffix in wanted)
    found = set().union(*map(_read_in, texts))
    return {name for name in found if not _AMBIENT.fullmatch(name)}


def _read_in(text: str) -> set[str]:
    """The variables that a file reads without setting them."""
    read = {name for hit in _NEEDED.findall(text) for name in hit if name}
    return read - set(_ASSIGNED.findall(text))


def _entries(entries: Sequence[Mapping[str, str]]) -> str:
    """A list of mappings below ``include``."""
    lines = []
    for entry in entries:
        for at, (name, value) in enumerate(entry.items()):
            lines.append(f"          {'-' if at == 0 else ' '} {name}: {json.dumps(value)}\n")
    return "".join(lines)


def _tools(shipped: Sequence[Shipped]) -> str:
    """The steps that install what the others need, and setup-uv does not bring."""
    steps = ""
    if any(each.pex for each in shipped):
        steps += "      - uses: pantsbuild/actions/init-pants@v10\n"
    if any("pixi install" in _artifact(each)["prepare"] for each in shipped):
        steps += "      - uses: prefix-dev/setup-pixi@v0.9.3\n        with:\n"
        steps += "          run-install: false\n"
    return steps


def _host(name: str) -> str:
    first = name.partition("/")[0]
    return first if "." in first or ":" in first or first == "localhost" else "docker.io"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "image"
