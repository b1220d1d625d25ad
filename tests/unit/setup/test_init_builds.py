"""How `init` reads the files that say how images are built, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from bundler.setup.file_edits import apply
from bundler.setup.init import chosen, plan
from bundler.setup.init.images import DeclaredBuild, builds_in
from bundler.setup.init.workflow import needed
from tests.support.workdir import WorkDir


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("build.yaml", "locations: [foo]\n"),
        ("build.yaml", "locations: {foo: 5}\n"),
        ("dagster_cloud.yaml", "locations: [{build: 5}, {build: {directory: 5}}]\n"),
        ("compose.yaml", "services: {a: {build: {context: ., args: 5}}}\n"),
        ("compose.yaml", "services: {a: {build: {context: ., args: [5, null]}}}\n"),
        ("compose.yaml", "services: {a: 5}\n"),
        ("compose.yaml", "services: [5]\n"),
        ("compose.yaml", "services: [\n"),
        (".github/workflows/a.yml", "jobs: {a: {steps: [5, {with: 5, run: 5}], env: 5}}\n"),
    ],
)
def test_a_malformed_declaration_stops_nothing(name: str, text: str, wd: WorkDir) -> None:
    wd.write("Dockerfile", "FROM x\nCOPY . .\n")
    wd.write(name, text)
    assert {build.dockerfile for build in builds_in(wd.path)} == {"Dockerfile"}


def test_what_is_not_utf_8_and_what_is_not_a_file_is_skipped(wd: WorkDir) -> None:
    wd.write("Dockerfile", "FROM x\nCOPY . .\n")
    for name in ("build.sh", "code.py", "compose.yaml"):
        text = "# -*- coding: latin-1 -*- für\ndocker build --target prod .\nenviron['API_URL']\n"
        (wd.path / name).write_bytes(text.encode("latin-1"))
    for name in ("pipe.sh", "pipe.py", "docker-compose.yml", "pipe.Dockerfile"):
        os.mkfifo(wd.path / name)
    assert "prod" in {build.target for build in builds_in(wd.path)}
    assert needed(Path(wd.path)) == {"API_URL"}


def _builds(wd: WorkDir, text: str, *, env: str = "{}", matrix: str = "{}") -> list[DeclaredBuild]:
    """Those of a workflow with these steps."""
    wd.write("Dockerfile", "FROM x\nCOPY . .\n")
    steps = "".join(f"      {line}\n" for line in text.splitlines())
    job = f"    strategy: {{matrix: {matrix}}}\n    steps:\n{steps}"
    wd.write(".github/workflows/a.yml", f"env: {env}\njobs:\n  a:\n{job}")
    return [build for build in builds_in(wd.path) if build.declared]


_BUILD = "- uses: docker/build-push-action@v6\n  with: {{build-args: '{}'}}\n"


@pytest.mark.parametrize(
    ("argument", "is_kept"),
    [
        ("CHANNEL=stable", True),
        ("CHANNEL=${{ github.sha }}", True),
        ("CHANNEL=${{ vars.CHANNEL }}", True),
        ("CHANNEL=${{ env.SET }}", True),
        ("CHANNEL=${{ env.NOT_SET }}", False),
        ("CHANNEL=${{ secrets.X }}", False),
        ("CHANNEL=${{ secrets['X'] }}", False),
        ("CHANNEL=${{ steps.a.outputs.b }}", False),
        ("CHANNEL=${{ matrix.unknown }}", False),
        ("CHANNEL=${{ vars.A || secrets.B }}", False),
        ("CHANNEL=${{ github.token }}", False),
        ("CHANNEL=${{ github.event.head_commit.message }}", False),
        ("CHANNEL=$CHANNEL", False),
        ("INDEX=https://user:sup3r@pypi.example.com/simple", False),
        ("TOKEN=sup3r", False),
        ("DB_PASSWORD=sup3r", False),
        ("aws_secret_access_key=sup3r", False),
        ("TOKEN_URL=here", True),
    ],
)
@pytest.mark.parametrize("form", [_BUILD, '- run: docker build --build-arg "{}" .\n'])
def test_only_arguments_that_are_public_and_known_are_copied(
    form: str,
    argument: str,
    is_kept: bool,  # a parameter of the table
    wd: WorkDir,
) -> None:
    text = form.format(argument.replace("'", "''") if form == _BUILD else argument)
    (build,) = _builds(wd, text, env="{SET: a}")
    name = argument.partition("=")[0]
    # In a shell, an expression is one word.
    kept = [f"{name}={value}".replace(" ", "") for name, value in build.arguments]
    wanted = argument.replace("${{ env.SET }}", "a").replace(" ", "")
    assert kept == ([wanted] if is_kept else [])
    assert build.withheld == (() if is_kept else (name,))


@pytest.mark.parametrize(
    ("target", "image", "expected"),
    [
        ("prod", "ghcr.io/acme/a:1", ("prod", "ghcr.io/acme/a")),
        ("${{ secrets.X }}", "${{ secrets.HOST }}/acme/a:1", ("", "")),
        ("${{ steps.a.outputs.b }}", "${{ steps.a.outputs.tags }}", ("", "")),
        ("${{ vars.T }}", "${{ vars.HOST }}/a:1", ("${{ vars.T }}", "${{ vars.HOST }}/a")),
        ("${{ env.X }}", "ghcr.io/${{ github.repository }}:1",
         ("", "ghcr.io/${{ github.repository }}")),
    ],
)  # fmt: skip
def test_a_target_and_an_image_are_known(
    target: str, image: str, expected: tuple[str, str], wd: WorkDir
) -> None:
    text = f"- uses: docker/build-push-action@v6\n  with: {{target: '{target}', tags: '{image}'}}\n"
    (build,) = _builds(wd, text)
    assert (build.target, build.image) == expected


_DOCKER = (
    "- uses: docker/login-action@v3\n  with: {{registry: '{}', password: '${{{{ secrets.P }}}}'}}\n"
)


@pytest.mark.parametrize(
    ("login", "registry"),
    [
        (_DOCKER.format("ghcr.io"), "ghcr.io"),
        (_DOCKER.format("${{ env.HOST }}"), "quay.io"),
        (_DOCKER.format("${{ vars.HOST }}"), "${{ vars.HOST }}"),
        (_DOCKER.format("${{ matrix.host }}"), "r.example.com"),
        (_DOCKER.format("${{ env.NOT_SET }}"), None),
        (_DOCKER.format("${{ steps.a.outputs.registry }}"), None),
        (_DOCKER.format("${{ inputs.registry }}"), None),
        (_DOCKER.format("ghcr.io") + "  if: steps.a.outputs.b\n", None),
        ("- uses: aws-actions/configure-aws-credentials@v4\n  with: {role-to-assume: x}\n", None),
        ("- uses: azure/login@v2\n  with: {client-id: x}\n", None),
        ("- uses: google-github-actions/auth@v2\n  with: {workload_identity_provider: x}\n", None),
    ],
)
def test_a_login_is_copied_if_another_job_can_run_it(
    login: str, registry: str | None, wd: WorkDir
) -> None:
    text = login + _BUILD.format("A=b")
    (build,) = _builds(wd, text, env="{HOST: quay.io}", matrix="{host: [r.example.com]}")
    assert [step["with"]["registry"] for step in build.login] == ([registry] if registry else [])


def _project(wd: WorkDir, folder: str, *, build: str, image: str = "") -> None:
    wd.write(
        f"{folder}/pyproject.toml",
        """[project]
name = "a"
[tool.dg.project]
root_module = "a"
[[tool.state-bundler.source]]
key = "A"
command = ["true"]
path = "src/state"
""",
    )
    wd.write(f"{folder}/Dockerfile", "FROM x\nCOPY . .\n")
    wd.write(f"{folder}/compose.yaml", f"services: {{a: {{build: {build}, image: '{image}'}}}}\n")
    wd.write(".github/CODEOWNERS", "* @data\n")


def _workflow(wd: WorkDir) -> str:
    apply(plan(*chosen(wd.path)))
    return (wd.path / ".github/workflows/state-bundler.yml").read_text()


def test_what_git_ignores_and_secrets_stay_out_of_the_workflow(wd: WorkDir) -> None:
    _project(wd, "one two", build="{context: ., args: {TOKEN: sup3r, CHANNEL: stable}}")
    override = "services: {a: {build: {context: ., target: mine, args: {CHANNEL: mine}}}}\n"
    wd.write("one two/docker-compose.override.yml", override)
    wd.write("mine/build.sh", "docker build --target mine 'one two'\n")
    wd.write(".gitignore", "docker-compose.override.yml\n/mine\n")
    text = _workflow(wd)
    assert "sup3r" not in text
    assert "mine" not in text
    assert "# or their value is not known: TOKEN.\n" in text
    (entry,) = yaml.safe_load(text)["jobs"]["image"]["strategy"]["matrix"]["include"]
    assert entry["project"] == "'one two'"
    assert entry["build"] == "--build-arg CHANNEL=stable 'one two'"


def test_no_two_images_of_the_workflow_have_one_name(wd: WorkDir) -> None:
    """Neither those of projects with the same name, nor those that compose files name alike."""
    for folder in ("x/app", "y/app", "z"):
        _project(wd, folder, build=".", image="acme/shop" if folder != "z" else "")
    _project(wd, "w", build=".")
    matrix = yaml.safe_load(_workflow(wd))["jobs"]["image"]["strategy"]["matrix"]["include"]
    images = {entry["project"]: entry["image"] for entry in matrix}
    assert len(set(images.values())) == len(images) == 4
    assert images["x/app"].startswith("acme/shop:x-app-")


@pytest.mark.slow
def test_logins_that_differ_are_not_copied(wd: WorkDir) -> None:
    for name in ("one", "two"):
        _project(wd, name, build=".")
        wd.write(
            f".github/workflows/{name}.yml",
            f"""\
jobs:
  a:
    steps:
      - uses: docker/login-action@v3
        with: {{registry: {name}.example.com}}
      - run: docker build --tag {name}.example.com/a/{name} {name}
""",
        )
    text = _workflow(wd)
    assert "registry: ${{ matrix.registry }}" in text
    assert "registry: one.example.com" not in text


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('os.environ["API_URL"]', {"API_URL"}),
        ('if os.environ["API_URL"] == "x": pass', {"API_URL"}),
        ('EnvVar("GITHUB_TOKEN")', {"GITHUB_TOKEN"}),
        ('os.environ["TZ"] = "UTC"', set()),
        ('os.environ["API_URL"] = "x"', set()),
        ('os.environ.setdefault("API_URL", "x")\nos.environ["API_URL"]', set()),
        ('del os.environ["API_URL"]', set()),
        *(
            (f'os.environ["{name}"]', set())
            for name in (
                *("PATH", "HOME", "USER", "TZ", "LANG", "LC_ALL", "PWD", "SHELL", "TMPDIR", "CI"),
                *("PYTHONPATH", "VIRTUAL_ENV", "GITHUB_SHA", "RUNNER_OS", "DAGSTER_HOME"),
            )
        ),
    ],
)
def test_the_variables_that_are_secrets(code: str, names: set[str], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code)
    assert needed(tmp_path) == names
