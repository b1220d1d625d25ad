"""The CI templates are valid, every command line in them parses, and their scripts really run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bundler.artifacts.image.layout import LayoutFolder, write_archive
from bundler.cli.commands import cli
from tests.support import registries
from tests.support.comments import Comments
from tests.support.environments import ROOT
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.pushing import basic, config, login, push
from tests.support.registries import Registry
from tests.support.workdir import WorkDir

TEMPLATES = sorted((ROOT / "templates/ci").iterdir())
_SCHEMAS = {
    "github-embed.yml": "vendor.github-workflows",
    "github-nightly.yml": "vendor.github-workflows",
    "github-plan.yml": "vendor.github-workflows",
    "github-pull-request.yml": "vendor.github-workflows",
    "gitlab-ci.yml": "vendor.gitlab-ci",
    "cloudbuild.yaml": "vendor.cloudbuild",
}
_KEY = "Catalogue"
_PROJECT = """\
[[tool.state-bundler.source]]
key = "Catalogue"
command = ["sh", "-c", 'printf %s "$EXAMPLE_API_TOKEN-$STATE" > {state_path}']
path = "src/shop/defs/.local_defs_state"

[tool.state-bundler]
not-secrets = ["EXAMPLE_API_TOKEN"]
"""


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / "templates/ci" / name).read_text())


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        if "state-bundler" in value:  # an argument list
            yield shlex.join(map(str, value))
        for item in value:
            yield from strings(item)


def command_lines(value: Any) -> Iterator[list[str]]:
    """Every call of ``state-bundler``, as words; what the shell would put in is a word, too."""
    for text in strings(value):
        whole = text.replace("\\\n", " ")
        for line in whole.splitlines():
            found = re.match(r"\s*(?:uvx --from \S+ )?(state-bundler .*)", line)
            if found:
                bare = re.sub(r"\$\([^()]*(\([^()]*\)[^()]*)*\)", "substituted", found[1])
                words = shlex.split(re.split(r" (?:\|\||>|&&) ", bare)[0])
                yield [word.replace("$", "x") for word in words[1:]]


@pytest.mark.parametrize("schema", sorted(set(_SCHEMAS.values())))
def test_templates_are_valid_by_the_schema_of_their_system(schema: str) -> None:
    paths = [path for path in TEMPLATES if _SCHEMAS.get(path.name) == schema]
    checker = Path(sys.executable).with_name("check-jsonschema")
    argv = [checker, "--builtin-schema", schema, *paths]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_has_no_schema_has_the_parts_that_its_system_wants() -> None:
    rest = {path.name for path in TEMPLATES} - _SCHEMAS.keys()
    assert rest == {"buildspec.yml", "argo-workflow.yaml", "helm-verify.yaml"}
    build = load("buildspec.yml")  # for the other two see `test_ci_kubernetes`
    assert build["version"] == 0.2
    assert set(build["phases"]) <= {"install", "pre_build", "build", "post_build"}
    lines = [line for phase in build["phases"].values() for line in phase["commands"]]
    assert all(isinstance(line, str) for line in lines)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_command_line_is_one_that_we_take(path: Path) -> None:
    lines = list(command_lines(load(path.name)))
    assert lines
    for name, *arguments in lines:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        with command.make_context(name, arguments):
            pass


# --- run ------------------------------------------------------------------------------------


class Ci:
    """A project in git, its image in a registry, and a shell as a CI system would start it."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self.registry = registry
        self.image = f"{registry.host}/acme/shop"
        self.wd = WorkDir.make(root / "project")
        self.wd.write("pyproject.toml", _PROJECT)
        self.wd.write("src/shop/defs/__init__.py", "")
        self.wd.write("src/shop/__init__.py", "")
        self.wd.write(".gitignore", ".local_defs_state/\n/image/\n/code.tar\n/digests/\n/digest\n")
        self.wd.write("deploy/values.yaml", "image: acme/shop:1\n")
        self.wd("git add -A")
        self.wd("git commit -qm shop")
        self.commit = self.wd("git rev-parse HEAD").strip()
        self.outputs = root / "outputs"
        self.maker = LayoutMaker(root / "base")
        self.maker.tag(self.maker.manifest([code_layer()], config()))
        self._programs(root / "bin")
        self.log = root / "gh.log"

    def _programs(self, folder: Path) -> None:
        """What a template starts besides us: uvx starts us, the others do nothing here."""
        folder.mkdir()
        log = folder.parent / "gh.log"
        body = f'cat "$(echo "$*" | sed "s/.*--body-file //")" >> {log}'
        programs = {
            "uvx": '[ "$1" != --from ] || shift 2\nexec "$@"',
            "uv": f'[ "$*" != "tool dir" ] || echo {folder}',
            "gh": f'echo "$@" >> {log}; {body}',
        }
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        # The environment that `uv tool install` makes.
        installed = folder / "state-bundler/bin/python"
        installed.parent.mkdir(parents=True)
        installed.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        installed.chmod(0o755)
        self.path = folder

    def push(self, name: str) -> str:
        return push(self.maker, name)

    def sh(self, script: str, code: int = 0, /, **variables: str) -> str:
        kept = {k: v for k, v in self.wd.env.items() if not k.lower().endswith("_proxy")}
        kept.pop("DOCKER_CONFIG", None)  # they log in at home
        environment = {
            **kept,
            "PATH": f"{self.path}:{self.wd.env['PATH']}",
            "IMAGE": self.image,
            "GITHUB_SHA": self.commit,
            "GITHUB_OUTPUT": str(self.outputs),
            "RUNNER_TEMP": str(self.path.parent),
            "GITHUB_EVENT_NAME": "push",
            "EXAMPLE_API_TOKEN": "a-token-of-the-example",
            "STATE_BUNDLER": "state-bundler @ file:///ours",
            "STATE": "1",
            **variables,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.wd.path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def reported(self) -> dict[str, str]:
        """What was handed to later steps last."""
        return dict(line.split("=", 1) for line in self.outputs.read_text().splitlines())


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Ci]:
    with registries.running() as registry:
        yield Ci(tmp_path, registry)


def runs(name: str, job: str) -> list[str]:
    return [step["run"] for step in load(name)["jobs"][job]["steps"] if "run" in step]


def test_github_builds_by_digest_refreshes_nightly_and_asks_nothing_for_forks(ci: Ci) -> None:
    digest = ci.push(f"{ci.image}:untagged").removeprefix("sha256:")
    ci.wd.write(f"digests/{digest}", "")
    ci.sh("\n".join(runs("github-embed.yml", "state")))

    reported = ci.reported()
    assert reported["changed"] == "true"
    assert reported["image"] == f"{ci.image}:{ci.commit}"
    assert ci.registry.tag("acme/shop", "main") == reported["digest"]

    # At night: nothing for the same state, a new tag and a pull request for another one.
    plan, update, *roll_out = runs("github-nightly.yml", "refresh")[1:]
    steps = load("github-nightly.yml")["jobs"]["refresh"]["steps"]
    (condition,) = [step["if"] for step in steps if step.get("id") == "update"]
    assert condition == "steps.plan.outputs.changed == 'true'"
    ci.sh(plan)
    assert ci.reported()["changed"] == "false"
    ci.sh(plan, STATE="2")
    assert ci.reported()["changed"] == "true"
    ci.sh(update, STATE="3")  # what was planned is shipped
    reported = ci.reported()
    assert reported["changed"] == "true"
    assert reported["image"].startswith(f"{ci.image}:main-s")
    assert ci.registry.tag("acme/shop", "main") != reported["digest"]
    ci.wd("git init -q --bare ../origin.git")
    ci.wd("git remote add origin ../origin.git")
    ci.sh("\n".join(roll_out), NEW=reported["image"], DIGEST=reported["digest"])
    assert f"image: {reported['image']}@{reported['digest']}" in ci.wd(
        "git show HEAD:deploy/values.yaml"
    )
    assert "pr create" in ci.log.read_text()
    assert _KEY in ci.log.read_text()
    ci.sh(plan, STATE="2")
    ci.sh(update, STATE="2")
    assert ci.reported() | {"changed": "true"} == reported
    assert ci.reported()["changed"] == "false"

    # A fork has no token: what it would fetch is not the state that it gets.
    write_archive(LayoutFolder(ci.maker.path).path, ci.wd.path / "code.tar")
    ci.sh("\n".join(runs("github-pull-request.yml", "image")), EXAMPLE_API_TOKEN="", STATE="none")
    ci.sh("state-bundler extract oci:image:pull-request -o image/out")
    (state,) = (ci.wd.path / "image/out").rglob("Catalogue/state")
    assert state.read_text() == "a-token-of-the-example-1"


_MARK = "<!-- state-bundler plan -->"


@pytest.fixture
def comments() -> Iterator[Comments]:
    with Comments() as server:
        yield server


def test_github_has_one_comment_with_the_plan(ci: Ci, comments: Comments, tmp_path: Path) -> None:
    ci.wd.write(f"digests/{ci.push(f'{ci.image}:untagged').removeprefix('sha256:')}", "")
    ci.sh("\n".join(runs("github-embed.yml", "state")))
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 7}}')
    variables = {
        "GITHUB_API_URL": comments.url,
        "GITHUB_REPOSITORY": "acme/shop",
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GH_TOKEN": comments.token,
    }
    script = "\n".join(runs("github-plan.yml", "plan"))
    comments.fill("/repos/acme/shop/issues/7/comments", 130)
    ci.sh(script, **variables)
    assert comments.ours(_MARK) == []
    ci.sh(script, STATE="2", **variables)
    (made,) = comments.ours(_MARK)
    assert f"Compared with `docker://{ci.image}:main`" in made
    assert _KEY in made
    ci.sh(script, STATE="345", **variables)
    (updated,) = comments.ours(_MARK)
    assert updated != made
    ci.sh(script, **variables)
    (nothing,) = comments.ours(_MARK)
    assert nothing.endswith("A refresh would change nothing.")
    ci.sh(script, 77, **{**variables, "GH_TOKEN": "another"})


def test_gitlab_has_one_note_with_the_plan(ci: Ci, comments: Comments) -> None:
    ci.wd.write(f"digests/{ci.push(f'{ci.image}:untagged').removeprefix('sha256:')}", "")
    ci.sh("\n".join(runs("github-embed.yml", "state")))
    variables = {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": comments.url,
        "CI_PROJECT_ID": "12",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": ci.commit,
        "CI_REGISTRY_IMAGE": ci.image,
        "GITLAB_TOKEN": comments.token,
    }
    script = "\n".join(load("gitlab-ci.yml")["plan"]["script"])
    for state in ("2", "3"):
        ci.sh(script, STATE=state, **variables)
        assert len(comments.ours(_MARK)) == 1


def test_gitlab_logs_in_and_runs(ci: Ci) -> None:
    ci.wd.write("digest", ci.push(f"{ci.image}/code:x"))
    ci.registry.user = ("gitlab-ci-token", "a%b c")
    job = load("gitlab-ci.yml")["state"]
    ci.sh(
        "\n".join([*job["before_script"], *job["script"]]),
        HOME=str(ci.wd.path.parent),
        CI_REGISTRY=ci.registry.host,
        CI_REGISTRY_USER="gitlab-ci-token",
        CI_REGISTRY_PASSWORD="a%b c",
        CI_REGISTRY_IMAGE=ci.image,
        CI_COMMIT_SHA=ci.commit,
        CI_ENVIRONMENT_NAME="production",
    )
    assert ci.registry.tag("acme/shop", ci.commit) is not None


def test_cloud_build_logs_in_and_runs(ci: Ci) -> None:
    ci.push(f"{ci.image}/code:17")
    ci.registry.user = ("oauth2accesstoken", "ya29.token")
    metadata = ci.path / "curl"
    metadata.write_text("""#!/bin/sh\necho '{"access_token": "ya29.token"}'\n""")
    metadata.chmod(0o755)
    script = load("cloudbuild.yaml")["steps"][-1]["args"][-1].replace("$$", "$")
    ci.sh(script, HOME=str(ci.wd.path.parent), BUILD="17", VERSION="abc")
    assert ci.registry.tag("acme/shop/shop", "abc") is not None


def test_argo_and_helm_run(ci: Ci, tmp_path: Path) -> None:
    ci.push(f"{ci.image}:1")
    templates = load("argo-workflow.yaml")["spec"]["workflowSpec"]["templates"]
    (script,) = next(item for item in templates if item["name"] == "update")["container"]["args"]
    script = script.replace("/tmp/", f"{tmp_path}/")
    # As Kubernetes keeps it in a secret of type kubernetes.io/dockerconfigjson.
    ci.registry.user = ("robot", "word")
    login(tmp_path / "secret.json", ci.registry.host, auth=basic("robot", "word"))
    secret = {"REGISTRY_AUTH_FILE": str(tmp_path / "secret.json")}
    ci.sh(script, IMAGE=f"{ci.image}:1", **secret)
    assert (tmp_path / "changed").read_text() == "true\n"
    made = (tmp_path / "image").read_text().strip()
    assert made.startswith(f"{ci.image}:1-s")

    job = load("helm-verify.yaml")["spec"]["template"]["spec"]["containers"][0]
    command = shlex.join(job["command"]).replace("{{ .Values.image }}", made)
    ci.sh(command, 77)
    ci.sh(command, 1, **secret)  # Argo's step had no git to ask: it is not --guarded
    ci.sh(command.replace(" --guarded", ""), **secret)
