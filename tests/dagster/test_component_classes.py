"""The classes that are known to have no state, against Dagster's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bundler.project.component_classes import ComponentClasses
from tests.support import warm
from tests.support.environments import python_of

_LIST = """
import json
import dagster, dagster_dbt
classes = [
    (f"{module.__name__}.{name}", issubclass(value, dagster.StateBackedComponent))
    for module in (dagster, dagster_dbt)
    for name, value in ((name, getattr(module, name)) for name in dir(module))
    if isinstance(value, type) and issubclass(value, dagster.Component)
]
print(json.dumps(classes))
"""


def test_no_class_with_state_is_taken_for_one_without(tmp_path: Path) -> None:
    done = subprocess.run(
        [warm.program(python_of("dagster")), "-c", _LIST],
        check=True,
        capture_output=True,
        text=True,
    )
    found = dict(json.loads(done.stdout))
    assert found["dagster_dbt.DbtCloudComponent"]
    classes = ComponentClasses([], tmp_path, Path.read_text)
    taken = {name for name in found if classes.is_stateless(name)}
    assert taken == {name for name, has_state in found.items() if not has_state}
