"""What is written for clusters is what they take: by Argo's models and by Kubernetes' schemas."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.environments import ROOT, python_of

_ARGO = """\
import json, sys
from hera.workflows.models import CronWorkflow
given = json.load(sys.stdin)
read = CronWorkflow.model_validate(given)
# The models pass over what they do not know: then less comes back.
assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == given
"""
_KUBERNETES = """\
import json, sys
import kubernetes_validate
for given in json.load(sys.stdin):
    volumes = given.get("spec", {}).get("volumes", [])
    newer = any("image" in volume for volume in volumes)  # image volumes: since 1.31
    for version in ("1.30", kubernetes_validate.latest_version())[newer:]:
        kubernetes_validate.validate(given, version, strict=True)
"""
_REFERENCE = re.compile(r"\{\{([^}]*)\}\}")


def accepts(script: str, given: Any) -> bool:
    done = subprocess.run(
        [python_of("kubernetes"), "-c", script],
        input=json.dumps(given),
        text=True,
        capture_output=True,
        check=False,
    )
    print(done.stderr)
    return done.returncode == 0


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / "templates/ci" / name).read_text())


def pod(**spec: Any) -> dict[str, Any]:
    """With its own container, where none is given."""
    filled = {"containers": [{"name": "shop", "image": "shop:1"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": filled}


@pytest.fixture
def workflow() -> Any:
    return load("argo-workflow.yaml")


@pytest.fixture
def templates(workflow: Any) -> dict[str, Any]:
    return {item["name"]: item for item in workflow["spec"]["workflowSpec"]["templates"]}


def test_argo_takes_the_workflow(workflow: Any) -> None:
    assert accepts(_ARGO, workflow)
    workflow["spec"]["workflowSpec"]["templates"][1]["retryStratagem"] = {"limit": "2"}
    assert not accepts(_ARGO, workflow)


def test_whatever_the_workflow_refers_to_is_there(workflow: Any, templates: dict[str, Any]) -> None:
    """As ``argo lint`` looks for it."""
    known = {
        f"workflow.parameters.{item['name']}"
        for item in workflow["spec"]["workflowSpec"]["arguments"]["parameters"]
    }
    steps = [step for group in templates["refresh"]["steps"] for step in group]
    for step in steps:
        outputs = templates[step["template"]].get("outputs", {}).get("parameters", [])
        known |= {f"steps.{step['name']}.outputs.parameters.{item['name']}" for item in outputs}
    wanted = templates["roll-out"]["inputs"]["parameters"]
    known |= {f"inputs.parameters.{item['name']}" for item in wanted}
    assert set(_REFERENCE.findall(json.dumps(workflow))) == known
    given = steps[-1]["arguments"]["parameters"]
    assert [item["name"] for item in given] == [item["name"] for item in wanted]


def test_kubernetes_takes_what_is_written_for_it(templates: dict[str, Any]) -> None:
    update = templates["update"]
    rolled = yaml.safe_load(templates["roll-out"]["resource"]["manifest"])
    container = {"name": "main", **update["container"]}
    given = [
        load("helm-verify.yaml"),
        pod(containers=[container], volumes=update["volumes"]),
        pod(**rolled["spec"]["template"]["spec"]),
        *examples(),
    ]
    assert len(given) == 7
    assert accepts(_KUBERNETES, given)
    container["volumeMount"] = container.pop("volumeMounts")
    assert not accepts(_KUBERNETES, given)


def examples() -> Iterator[dict[str, Any]]:
    """What the guide shows."""
    text = (ROOT / "docs/how-to/kubernetes.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        shown = yaml.safe_load(textwrap.dedent(block))
        yield pod(**(shown["spec"]["template"]["spec"] if "spec" in shown else shown))
