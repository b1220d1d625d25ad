"""`doctor` reaches external systems with their credentials, and refreshes nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import trustme

from bundler.listener import SILENT
from bundler.project.projects import open_project
from bundler.project.survey import survey
from bundler.refresh.model import Reached
from bundler.refresh.reach import look
from bundler.refresh.run import discover
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.reach import reach as findings
from tests.support.environments import ROOT, python_of
from tests.support.faultserver import FaultServer

TOKEN = "canary-token-0123456789"
CLIENTS = "requests urllib httpx-async"


def _reach(
    root: Path, faults: dict[str, str], monkeypatch: pytest.MonkeyPatch, table: str = ""
) -> dict[str, Reached]:
    shutil.copytree(ROOT / "tests/projects/refresh_clients", root)
    file = root / "pyproject.toml"
    file.write_text(file.read_text() + table)
    monkeypatch.setenv("FAULTS", json.dumps(faults))
    monkeypatch.setenv("CLIENTS", CLIENTS)
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    looked = look([open_project(root, python=python_of("clients"))])
    return {item.key: item for item in looked.reached}


def test_each_system_is_asked_once_or_twice_and_what_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    codes = {"good": 0, "401": 77, "503": 69, "404": 78, "silent": 69, "refused": 69, "500@2": 0}
    with FaultServer() as server:
        faults = {fault: server.of(fault) for fault in codes}
        faults["refused"] = "http://127.0.0.1:1"
        found = _reach(root, faults, monkeypatch)
        address = f"127.0.0.1:{server.port}"
        asked = dict(server.requests)
    for client in CLIENTS.split():
        for fault, code in codes.items():
            reached = found[f"Fetches[{client}/{fault}]"]
            failure = reached.failure
            assert (failure.exit_code if failure else 0) == code, reached
            if code == 0:
                assert reached.hosts == (address,)
            assert TOKEN not in str(reached)
    assert not (root / "state").exists()
    assert all("page=2" not in target and "page=3" not in target for target in asked)


def test_a_slow_component_that_asks_nobody_is_not_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that runs ``dbt parse`` on a large project."""
    (tmp_path / "slow.py").write_text(_SLOW)
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.state-bundler.source]]\ncomponent = "slow:Slow"\npath = "state"\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project = open_project(tmp_path, python=Path(sys.executable))
    (reached,) = look([project], seconds=0.5).reached
    assert (reached.failure, reached.how, reached.hosts) == (None, "nothing", ())
    (unseen,) = discover([project], SILENT)
    (component,) = unseen.components
    assert component.key == "Slow[parse]"
    assert component.unread == "build_defs_from_state of slow.Slow does not read state_path"


_SLOW = """\
import subprocess
from bundler.component import DefsStateConfig, StateBackedComponent

class Slow(StateBackedComponent):
    @property
    def defs_state_config(self):
        return DefsStateConfig.of(self, "parse")

    def write_state_to_path(self, state_path):
        subprocess.run(["sleep", "600"], check=True)

    def build_defs_from_state(self, context, state_path):
        return 1
"""
_COMMANDS = """\
[project]
name = "programs"

[[tool.state-bundler.source]]
key = "Reachable"
command = ["curl", "-o", "{{state_path}}", "{good}/feed"]
path = "state"

[[tool.state-bundler.source]]
key = "Untrusted"
command = ["curl", "-o", "{{state_path}}", "{tls}/feed"]
path = "state"

[[tool.state-bundler.source]]
key = "Gone"
command = ["curl", "-o", "{{state_path}}", "http://127.0.0.1:1/feed"]
path = "state"

[[tool.state-bundler.source]]
key = "Says"
command = ["no-such-program", "{{state_path}}"]
path = "state"

[[tool.state-bundler.source]]
key = "Silent"
command = ["echo", "{{state_path}}"]
path = "state"

[tool.state-bundler.keys.Says]
reach = ["python3", "-c", "import os; raise SystemExit(77 if os.environ['LETS_IN'] == 'no' else 0)"]
"""


def _told(root: Path) -> dict[str, Finding]:
    patient = DoctorContext(survey(root), Path(sys.executable), reaches=True)
    return {finding.what.partition(":")[0]: finding for finding in findings(patient)}


def test_programs_are_asked_as_they_say_or_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("LETS_IN", "no")
    with FaultServer() as server, FaultServer(tls=context) as secure:
        text = _COMMANDS.format(good=server.url, tls=secure.url)
        (tmp_path / "pyproject.toml").write_text(text)
        reported = _told(tmp_path)
        monkeypatch.setenv("LETS_IN", "yes")
        again = _told(tmp_path)
        assert not server.requests
    assert reported["Reachable"].grade == "ok"
    assert "credentials were not checked" in reported["Reachable"].what
    assert reported["Untrusted"].grade == "fail"
    assert "self-signed" in reported["Untrusted"].what or "issuer" in reported["Untrusted"].what
    assert "127.0.0.1:1 is unreachable: Connection refused" in reported["Gone"].what
    assert "failed with exit code 77" in reported["Says"].what
    assert again["Says"].grade == "ok"
    assert reported["Silent"].grade == "warn"
    assert "reach = " in reported["Silent"].fix
    assert not (tmp_path / "state").exists()
