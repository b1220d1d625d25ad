"""The documentation is compared with the program: commands, settings, links, tables, examples."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from bundler.project import settings_docs
from bundler.project.config import json_schema, parse
from tests.support import reference
from tests.support.engine import Engine, make_python_base
from tests.support.environments import ROOT
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.engine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = ROOT / "docs"
PROJECT = ("README", "CONTRIBUTING", "CODE_OF_CONDUCT", "RELEASING", "SECURITY")
PAGES = [
    *(ROOT / f"{name}.md" for name in PROJECT),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted(DOCS.rglob("*.md")),
]
BIN = Path(sys.executable).parent
_OURS = ("state-bundler", "state-guard", "pex-bundle", "docker bundle")

# Run one after the other in one project, as a reader would.
SCENARIO = (
    "state-bundler doctor",
    "state-bundler doctor --reach",
    "state-bundler doctor --matrix",
    "state-bundler init --yes",
    "git add .",
    "git commit --quiet --message=configured",
    "state-bundler init --git-hooks",
    "state-bundler init --git-hooks --remove",
    "state-bundler doctor --fix",
    "state-guard",
    "state-guard --history",
    "state-bundler guard --fix",
    "state-bundler refresh",
    "state-bundler refresh -o states.tar",
    "state-bundler build pex -o app.pex -- -r requirements.txt -D src --venv",
    "pex-bundle -r requirements.txt -D src --venv -o app.pex",
    "state-bundler verify app.pex",
    "state-bundler verify app.pex --max-age 24h --commit HEAD --clean --guarded",
    "state-bundler status app.pex",
    "state-bundler update app.pex",
    "cp app.pex app-1.pex",
    "cp app.pex app-2.pex",
    "state-bundler diff app-1.pex app-2.pex",
    "state-bundler build pex --state-from app-1.pex -o app.pex -- -D src --venv",
    "state-bundler build --each --workers 8 --report report.json oci -o 'build/{name}:1'",
    "state-bundler build --each oci -o '{here}/build/{name}:1'",
    "state-bundler status --html report.html",
    "state-bundler init --docker-plugin",
    "state-bundler build docker -t shop:1.4 .",
    "docker bundle build -t shop:1.4 .",
    "state-bundler verify shop:1.4",
    "state-bundler update shop:1.4",
    "docker tag shop:1.4 shop:1.3",
    "state-bundler build docker --baseline shop:1.3 -t shop:1.4 .",
    "state-bundler build docker --state-from states.tar -t shop:1.4 .",
    "docker image rm --force shop:1.3 shop:1.4",
)
# Pages that tests of their own run from beginning to end.
WHOLE_PAGES = {
    "compose.md": "test_compose",
    "first-image.md": "test_tutorial",
    "pex.md": "test_pex_guide",
    "without-dagster.md": "test_without_dagster",
    "wheel.md": "test_pex_guide",
    "registries.md": "test_docs_registries",
}
# Where the others are run.
ELSEWHERE = {
    "state-bundler demo": "test_demo",
    "state-bundler init": "test_init: it asks",
    "state-bundler guard": "test_demo",
    "state-bundler build docker --refresh missing --load-check": "test_demo",
    "state-bundler build oci --refresh missing -o build/state-image": "test_demo",
    "state-bundler build pex --refresh missing -o build/shop.pex": "test_demo",
    "state-bundler verify build/shop.pex": "test_demo",
    "state-bundler status --html build/state.html build/shop.pex": "test_demo",
    "state-bundler verify src/shop/defs/.local_defs_state": "test_demo",
    "state-bundler status build/shop.pex": "test_demo",
    "state-bundler refresh --key 'VendorCatalog[products]'": "test_demo",
    "state-bundler refresh --in": "test_refresh_inside",
    "state-bundler build docker --state-from registry-copy.tar": "test_replay",
    "state-bundler build docker -f projects/orders/Dockerfile": (
        "test_a_context_above_the_project"
    ),
    "docker bundle bake app": "newer_docker, by make docker-newer: buildx has to be there",
    "state-bundler plan": "test_plan",
    "state-bundler update app.pex --plan plan.bin": "test_plan: update",
    "state-bundler diff app-1.pex app-2.pex --definitions": "test_diff_definitions",
    "state-bundler predicate": "test_attestation",
    "state-bundler embed --tag ghcr.io/acme/shop-state:1": "test_docs_registries",
    "state-bundler sign": "test_signature",
    "state-bundler verify app.pex --signed-by": "test_signature",
    "state-bundler update registry.example": "test_registry",
}
_PROJECT = """\
[project]
name = "shop"
version = "1"

[tool.state-bundler]
image-path = "/app/shop/state"

[[tool.state-bundler.source]]
key = "Catalogue"
command = ["{python}", "fetch.py", "{{state_path}}"]
path = "src/shop/state"
"""
_DOCKERFILE = "FROM {base}\nCOPY src/ /app/\nENV PYTHONPATH=/app\n"


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(page: Path, language: str) -> Iterator[str]:
    for found in re.finditer(
        r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", _text(page), re.DOTALL | re.MULTILINE
    ):
        if found[2] == language:
            yield "\n".join(line.removeprefix(found[1]) for line in found[3].splitlines())


def _shown(page: Path) -> list[str]:
    """Every command of ours in the page's consoles, without its comment."""
    text = "\n".join(_blocks(page, "console"))
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.startswith(_OURS)]


COMMANDS = sorted(
    {
        command
        for page in PAGES
        if page.name not in WHOLE_PAGES and "examples" not in page.parts
        for command in _shown(page)
    }
)


# --- commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_run_by_a_test(command: str) -> None:
    elsewhere = any(command.startswith(start) for start in ELSEWHERE)
    assert command in SCENARIO or elsewhere, "run it in SCENARIO, or say where it is run"


def test_nothing_is_said_to_run_elsewhere_that_is_not_shown() -> None:
    shown = [*COMMANDS, *(line for page in PAGES for line in _text(page).splitlines())]
    for start in ELSEWHERE:
        assert any(start in line for line in shown), start


def test_the_commands_do_what_they_are_shown_for(wd: WorkDir, engine: Engine) -> None:
    wd.write("pyproject.toml", _PROJECT.format(python=sys.executable))
    wd.write("fetch.py", "import sys; open(sys.argv[1], 'w').write('[1, 2, 3]')\n")
    wd.write("src/shop/__init__.py", "")
    wd.write("requirements.txt", "")
    wd.write("pex/dg.toml", '[project]\nroot_module = "shop"\n')
    wd.write(".gitignore", "/build\n/*.pex\n/*.tar\n/report.*\n/src/shop/state\n")
    wd.write("Dockerfile", _DOCKERFILE.format(base=make_python_base(engine)))
    wd("git add .")
    wd.commit("project")
    docker = Path(engine.clis[0]).parent
    env = {
        **engine.environment,
        **wd.env,
        "DOCKER_CONFIG": str(wd.path.parent / "docker"),
        "PATH": os.pathsep.join([str(BIN), str(docker), os.environ["PATH"]]),
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    for command in SCENARIO:
        done = subprocess.run(
            shlex.split(command), cwd=wd.path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_is_shown_exists(command: str) -> None:
    words = shlex.split(command.rstrip("\\"))
    if words[0] != "state-bundler":
        return
    found: click.Command = reference.cli
    words = words[1:]
    while isinstance(found, click.Group):
        own = {name for parameter in found.params for name in parameter.opts}
        while words and words[0].startswith("-"):
            assert words[0] in own, command
            takes = not any(
                getattr(parameter, "is_flag", False)
                for parameter in found.params
                if words[0] in parameter.opts
            )
            words = words[1 + takes :]
        child = found.get_command(click.Context(found), words[0])
        assert child is not None, command
        found, words = child, words[1:]
    ours = words[: words.index("--")] if "--" in words else words
    if found.name not in ("docker", "bake"):
        known = {name for parameter in found.params for name in parameter.opts}
        assert {word for word in ours if word.startswith("-")} <= known, command


# --- what is made from the program --------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_a_page_is_what_the_program_says(name: str) -> None:
    assert _text(DOCS / name) == reference.pages()[name], "run: make docs"


def test_every_setting_has_a_meaning() -> None:
    definitions = json_schema()["$defs"]
    for model, reported in settings_docs._BY_MODEL.items():
        assert set(reported) == set(definitions[model]["properties"])


def test_the_dependencies_are_those_that_are_declared() -> None:
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    page = _text(DOCS / "reference/dependencies.md")
    for requirement in declared:
        name, _, floor = requirement.partition(";")[0].strip().partition(">=")
        row = re.search(rf"^\|[^|\n]*?\|? ?{re.escape(name)} \| {re.escape(floor)} \| (\S+) ",
                        page, re.MULTILINE)  # fmt: skip
        assert row, requirement
        assert _licence(name) in (row[1], ""), name
    assert len(re.findall(r"^\| (?!package|extra|-)", page, re.MULTILINE)) == len(declared)


def _licence(name: str) -> str:
    """As its metadata names it; empty where that is only a classifier or a whole text."""
    reported = importlib.metadata.metadata(name)
    found = reported.get("License-Expression") or reported.get("License") or ""
    return found if re.fullmatch(r"(?!UNKNOWN)[\w.-]+", found) else ""


# --- examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_are_what_they_claim_to_be(page: Path) -> None:
    for text in _blocks(page, "toml"):
        table = tomllib.loads(text).get("tool", {}).get("state-bundler")
        if table is not None:
            parse(table, page)
    for text in _blocks(page, "yaml"):
        assert list(yaml.safe_load_all(text))
    for text in _blocks(page, "python"):
        compile(text, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_conflict(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", _text(page), re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
            for heading in headings}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        there = page if not path else (page.parent / path).resolve()
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in _anchors(there), target


def test_the_index_lists_every_page() -> None:
    index = DOCS / "README.md"
    for page in DOCS.rglob("*.md"):
        assert page == index or f"({page.relative_to(DOCS)})" in _text(index), page


def test_the_licence_is_the_one_that_is_declared() -> None:
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in _text(ROOT / "LICENSE")
