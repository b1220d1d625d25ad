"""The context of an image is above its project: `init`, `doctor` and a build agree on its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.building import refuse_missing_configuration
from bundler.artifacts.image.engine.dockerbuild import Builder, BuildInput
from bundler.errors import ConfigurationError
from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, Finding, docker
from bundler.setup.init import plan
from tests.support.pex_projects import write
from tests.support.workdir import WorkDir

_PROJECT = '[project]\nname = "shop"\nversion = "1"\n[tool.dg.project]\nroot_module = "shop"\n'
_DOCKERFILE = "FROM x\nCOPY projects/shop /app\nCOPY lib /lib\n"


@pytest.fixture(params=["projects/shop/Dockerfile", "docker/shop.Dockerfile"])
def dockerfile(wd: WorkDir, request: pytest.FixtureRequest) -> str:
    write(
        wd.path,
        {
            request.param: _DOCKERFILE,
            "lib/shared.py": "",
            "lib/.env": "TOKEN=hunter2\n",
            "projects/shop/pyproject.toml": _PROJECT,
            "projects/shop/src/shop/defs/__init__.py": "",
        },
    )
    return str(request.param)


def _context(root: Path) -> list[Finding]:
    return [*docker.context(DoctorContext(survey(root / "projects/shop")))]


@pytest.mark.parametrize("own", [False, True])
def test_init_writes_where_the_build_reads_and_doctor_looks_there(
    wd: WorkDir, dockerfile: str, *, own: bool
) -> None:
    ignore_file = wd.path / (f"{dockerfile}.dockerignore" if own else ".dockerignore")
    if own:
        write(wd.path, {f"{dockerfile}.dockerignore": "*.md\n", ".dockerignore": "*.txt\n"})
    reported = {finding.what for finding in _context(wd.path) if finding.grade == "warn"}
    seen = "Dockerfile.dockerignore" if own else ".dockerignore"
    assert any(f"{seen} does not exclude lib/.env." in what for what in reported)
    assert any("not exclude projects/shop/src/shop/defs/.local_defs_state" in it for it in reported)

    found = survey(wd.path / "projects/shop")
    edits = plan(found, without=["table", "backend", "ignore", "pre-commit", "ci"])
    assert [edit.path for edit in edits] == [ignore_file]
    for edit in edits:
        edit.path.write_text(edit.after or "")
    assert {finding.grade for finding in _context(wd.path)} == {"ok"}


def test_an_ignore_file_that_no_build_reads_is_found(wd: WorkDir, dockerfile: str) -> None:
    write(wd.path, {"projects/shop/.dockerignore": "**/.local_defs_state\n"})
    reported = [finding for finding in _context(wd.path) if "no build reads" in finding.what]
    assert [finding.what for finding in reported] == [
        "The context is ../.., so no build reads .dockerignore in the project."
    ] , dockerfile  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_a_build_names_the_file_with_the_rule(wd: WorkDir, dockerfile: str, *, own: bool) -> None:
    name = f"{dockerfile}.dockerignore" if own else ".dockerignore"
    arguments = parse(["-f", str(wd.path / dockerfile), str(wd.path)])
    given = BuildInput(arguments, detected=lambda: Builder("buildx", ""))
    write(wd.path, {name: "**/pyproject.toml\n"})
    with pytest.raises(ConfigurationError, match=f"{wd.path}/{name} excludes projects/shop/pyp"):
        refuse_missing_configuration(given, wd.path / "projects/shop")


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ("", ["**/.local_defs_state", "**/src/other"]),
        ("**/.local_defs_state\n", ["**/src/other"]),
        ("**/.local_defs_state\n!**/x\n", ["**/.local_defs_state", "**/src/other"]),
    ],
)
def test_the_fix_names_the_rules_that_are_missing(
    wd: WorkDir, rules: str, missing: list[str]
) -> None:
    source = '[[tool.state-bundler.source]]\nkey = "k"\ncommand = ["c"]\npath = "src/other"\n'
    write(
        wd.path,
        {
            "Dockerfile": "FROM x\nCOPY . .\n",
            "pyproject.toml": _PROJECT + source,
            "src/shop/defs/__init__.py": "",
            ".dockerignore": rules,
        },
    )
    findings = [*docker.context(DoctorContext(survey(wd.path)))]
    (fix,) = {it.fix for it in findings if "does not exclude src/other" in it.what}
    assert [rule for rule in ("**/.local_defs_state", "**/src/other") if rule in fix] == missing
