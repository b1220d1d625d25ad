"""Secrets and keys that a build is lent: the step gets them, and nothing else ever does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import PLACE
from tests.support.dockerprojects import PLUGIN, Project
from tests.support.engine import PYTHON_BASE, install

pytestmark = pytest.mark.engine(offline=True)

# BuildKit alone lends anything: Debian's own, and buildx where the tests have a newer Docker.
CLIS = [0, 1] if "BUNDLER_TEST_STORE" in os.environ else [0]
DOCKERFILE = f"""\
FROM {PYTHON_BASE}
WORKDIR /app
COPY src /app/src
ENV PYTHONPATH=/app/src
RUN --mount=type=secret,id=file --mount=type=secret,id=variable --mount=type=ssh \\
    python3 src/probe.py > /app/seen
"""
# Asks the agent for its keys, as draft-miller-ssh-agent has it: 11 is answered by 12 and a number.
PROBE = """\
import hashlib, os, socket
for name in ("file", "variable"):
    print(name, hashlib.sha256(open(f"/run/secrets/{name}", "rb").read()).hexdigest())
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(os.environ["SSH_AUTH_SOCK"])
    agent.sendall(bytes([0, 0, 0, 1, 11]))
    answer = agent.makefile("rb").read(9)
print("keys", answer[4] == 12 and int.from_bytes(answer[5:9], "big"))
"""


@contextmanager
def agent() -> Iterator[str]:
    """The socket of an ssh-agent that holds one key."""
    program = install("ssh-agent", "openssh-client")
    folder = Path(tempfile.mkdtemp())  # a socket's path has to be short
    try:
        line = str(folder / "agent")
        with subprocess.Popen([program, "-D", "-a", line], stdout=subprocess.DEVNULL) as process:
            try:
                key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
                subprocess.run(key, check=True)
                deadline = time.monotonic() + 60
                while not os.path.exists(line):
                    assert time.monotonic() < deadline, "ssh-agent did not start"
                    time.sleep(0.01)
                environment = {**os.environ, "SSH_AUTH_SOCK": line}
                add = ["ssh-add", "-q", str(folder / "key")]
                subprocess.run(add, env=environment, check=True)
                yield line
            finally:
                process.terminate()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("cli", CLIS)
def test_what_a_step_is_lent_stays_with_it(cli: int, project: Project, tmp_path: Path) -> None:
    project.write("Dockerfile", DOCKERFILE)
    # A secret is no part of what a cached step is known by.
    project.write("src/probe.py", f"# {os.urandom(12).hex()}\n{PROBE}")
    project.configure()
    secrets = {name: f"{os.urandom(12).hex()} of the {name}" for name in ("file", "variable")}
    (tmp_path / "secret").write_text(secrets["file"])
    metadata = tmp_path / "metadata.json"
    program = project.engine.clis[cli]
    buildkit = "1" if cli == 0 else ""
    with agent() as line:
        done = subprocess.run(
            [PLUGIN, "bundle", "build", "--progress=plain", "--metadata-file", metadata,
             f"--secret=id=file,src={tmp_path / 'secret'}", "--secret", "id=variable,env=LENT",
             "--ssh", "default", "-t", project.name, "."],
            env=project.environment(LENT=secrets["variable"], SSH_AUTH_SOCK=line,
                                    STATE_BUNDLER_DOCKER=program, DOCKER_BUILDKIT=buildkit),
            cwd=project.root, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    whole = project.everything()
    for name, value in secrets.items():
        assert f"{name} {hashlib.sha256(value.encode()).hexdigest()}".encode() in whole
    assert b"\nkeys 1\n" in whole
    assert f"{PLACE}/Catalog/state".encode() in whole
    for value in secrets.values():
        for reported in (whole, done.stdout, done.stderr, metadata.read_bytes()):
            assert value.encode() not in reported
