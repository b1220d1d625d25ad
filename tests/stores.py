"""Object stores on loopback for the tests: each in an environment of its own, ended by its pid."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import python_of

HERE = Path(__file__).parent
S3_KEY_ID = "AKIATESTTESTTESTTEST"
S3_SECRET = "wJalrXUtnFEMI-test"


@dataclass(frozen=True)
class Server:
    """A store that runs. scheme, bucket: of its URLs. environment: by which clients find it."""

    scheme: str
    bucket: str
    environment: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = ""

    def url(self) -> str:
        """A place in it that nobody else has."""
        return f"{self.scheme}://{self.bucket}/{uuid.uuid4().hex[:8]}"

    def faults(self, *faults: Mapping[str, Any]) -> None:
        """See `s3server`; S3 only."""
        _ask(f"{self.endpoint}/@faults", "PUT", json.dumps(faults).encode())

    def requests(self) -> list[str]:
        """What was asked since the last call; S3 only."""
        found: list[str] = json.loads(_ask(f"{self.endpoint}/@requests"))
        return found


def fault(contains: str, *, times: int = 1, **rest: Any) -> dict[str, Any]:
    return {"contains": contains, "times": times, **rest}


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
        yield Server("s3", "states", environment, endpoint)
