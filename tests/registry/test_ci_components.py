"""The GitHub Action and the GitLab component: their steps run against a registry."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.registry.test_ci_templates import Ci
from tests.support import registries
from tests.support.comments import Comments
from tests.support.environments import ROOT

_ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
_SPEC, _JOB = (ROOT / "templates/state-bundler.yml").read_text().split("\n---\n")


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Ci]:
    with registries.running() as registry:
        yield Ci(tmp_path, registry)


def run_action(
    ci: Ci, code: int = 0, /, *, runner: Mapping[str, str] | None = None, **inputs: str
) -> dict[str, str]:
    """As a runner does; `code` is that of the step that makes the artifact.

    runner: variables that the runner sets.
    """
    given = {name: one.get("default", "") for name, one in _ACTION["inputs"].items()} | inputs

    def filled(text: str) -> str:
        """An expression: the first of its alternatives that is not empty."""
        chosen = next(
            (reported for one in text.split("||") if (reported := value(one.strip()))), ""
        )
        return str(chosen)

    def value(name: str) -> str:
        group, _, rest = name.partition(".")
        if group == "inputs":
            return given[rest]
        if name.startswith("steps.make.outputs."):
            return ci.reported().get(name.rpartition(".")[2], "") if ci.outputs.exists() else ""
        assert name == "github.action_path"
        return str(ROOT)

    for step in _ACTION["runs"]["steps"][1:]:
        variables = {name: re.sub(r"\$\{\{(.*?)\}\}", lambda found: filled(found[1]), text)
                     for name, text in step.get("env", {}).items()}  # fmt: skip
        variables |= {"GITHUB_PATH": str(ci.outputs.with_name("path")), **(runner or {})}
        expected = code if step.get("id") == "make" else 0
        ci.sh(step["run"], expected, **variables)
        if expected:
            return {}
    return ci.reported() if ci.outputs.exists() else {}


def test_the_action_embeds_updates_and_verifies(ci: Ci) -> None:
    digest = ci.push(f"{ci.image}:code")
    made = run_action(
        ci,
        embed=f"{ci.image}@{digest}",
        tags=f"{ci.image}:1.4\n{ci.image}:main",
        arguments="--environment 'a place'",
        verify="--guarded --max-age 1h",
    )
    assert made["changed"] == "true"
    assert made["image"] == f"{ci.image}:1.4"
    assert ci.registry.tag("acme/shop", "main") == made["digest"]
    again = run_action(ci, update=f"docker://{ci.image}:main")
    assert again["changed"] == "false"
    first = run_action(ci, update=f"docker://{ci.image}:code", arguments="--in-place")
    assert first["changed"] == "true"


def test_the_action_builds(ci: Ci) -> None:
    run_action(ci, build="oci", arguments="-o image", artifact="oci:image")
    assert (ci.wd.path / "image/index.json").exists()


def test_the_action_passes_on_an_empty_argument(ci: Ci) -> None:
    run_action(ci, build="oci", arguments="-o image --environment ''")


def test_the_action_refuses_a_quote_without_an_end(ci: Ci) -> None:
    run_action(ci, 1, build="oci", arguments="-o image --environment 'a place")
    assert not (ci.wd.path / "image").exists()


def test_the_action_comments_the_plan(ci: Ci, tmp_path: Path) -> None:
    digest = ci.push(f"{ci.image}:code")
    run_action(ci, embed=f"{ci.image}@{digest}", tags=f"{ci.image}:main")
    baseline = f"docker://{ci.image}:main"
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 7}}')
    with Comments() as comments:
        runner = {
            "GITHUB_API_URL": comments.url,
            "GITHUB_REPOSITORY": "acme/shop",
            "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        }

        def plan(state: str, **more: str) -> list[str]:
            given = {**runner, "STATE": state, **more}
            reported = run_action(ci, runner=given, plan=baseline, token=comments.token)
            assert reported["changed"] == str(state != "1").lower()
            return comments.ours("<!-- state-bundler plan -->")

        assert plan("1") == []
        (made,) = plan("2")
        assert f"Compared with `{baseline}`" in made
        assert f"Compared with `{baseline}`" in (tmp_path / "summary.md").read_text()
        (updated,) = plan("345")
        assert updated != made
        assert plan("6789", GITHUB_EVENT_NAME="schedule") == [updated]  # no pull request


@pytest.mark.parametrize("inputs", [{}, {"build": "oci", "update": "docker://x/y"}])
def test_the_action_requires_a_command(ci: Ci, inputs: Mapping[str, str]) -> None:
    run_action(ci, 2, **inputs)


def test_the_action_describes_everything(tmp_path: Path) -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    argv = [checker, "--builtin-schema", "vendor.github-actions", ROOT / "action.yml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (ROOT / "docs/how-to/github.md").read_text()
    for name in (*_ACTION["inputs"], *_ACTION["outputs"]):
        assert f"| `{name}` |" in page


def component(**inputs: str) -> dict[str, Any]:
    declared = yaml.safe_load(_SPEC)["spec"]["inputs"]
    given = {name: one.get("default") for name, one in declared.items()} | inputs
    text = re.sub(r"\$\[\[ inputs\.(\S+) \]\]", lambda found: given[found[1]], _JOB)
    (job,) = yaml.safe_load(text).values()
    return dict(job)


def test_the_component_embeds_and_verifies(ci: Ci, tmp_path: Path) -> None:
    digest = ci.push(f"{ci.image}:code")
    job = component(source=f"{ci.image}@{digest}", tag=f"{ci.image}:1.4", install="$STATE_BUNDLER")
    login = {"CI_REGISTRY": ci.registry.host, "CI_REGISTRY_USER": "a", "CI_REGISTRY_PASSWORD": "b"}
    ci.sh("\n".join([*job["before_script"], *job["script"]]), **login)
    assert ci.registry.tag("acme/shop", "1.4")


def test_the_component_is_a_job_of_gitlab(tmp_path: Path) -> None:
    pipeline = tmp_path / "job.yml"
    pipeline.write_text(
        yaml.safe_dump({"stages": ["deploy"], "state": component(source="a", tag="b", install="c")})
    )
    checker = Path(sys.executable).with_name("check-jsonschema")
    argv = [checker, "--builtin-schema", "vendor.gitlab-ci", pipeline]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (ROOT / "docs/how-to/gitlab.md").read_text()
    for name in yaml.safe_load(_SPEC)["spec"]["inputs"]:
        assert f"| `{name}` |" in page
