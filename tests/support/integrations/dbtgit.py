"""A git server: dbt projects in repositories that want a token, by git's own smart HTTP protocol.

The server's side is git's own ``http-backend``. The first label of the host is the case, as in
``https://html-at-refs.git.example.com/shop.git``. There are four repositories: ``shop``
(the dbt project of ``tests/projects/integration_dbt``, in a folder, and the same at the root of
``plain``), ``empty``, which has no commit, and ``headless``, whose default branch is missing.
"""

from __future__ import annotations

import base64
import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from tests.support.environments import ROOT
from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

TOKEN = "canary-git-token-0123456789"
DOMAIN = "git.example.com"
PROJECT = ROOT / "tests/projects/integration_dbt/orders"
_IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")


def url_of(case: str, repository: str = "shop") -> str:
    """Where a case's repository is cloned from."""
    return f"https://{case}.{DOMAIN}/{repository}.git"


def _git(*arguments: str | Path) -> None:
    subprocess.run(["git", *_IDENTITY, *arguments], check=True, capture_output=True)


@functools.cache
def _repositories() -> tempfile.TemporaryDirectory[str]:
    """Bare repositories, made once; removed when the program ends."""
    folder = tempfile.TemporaryDirectory(prefix="git-server-")
    root = Path(folder.name)
    for name, work_tree in (("shop", PROJECT.parent), ("plain", PROJECT)):
        bare = root / f"{name}.git"
        _git("init", "--quiet", "--bare", "--initial-branch=main", bare)
        here = (f"--git-dir={bare}", f"--work-tree={work_tree}")
        _git(*here, "add", "--all", "--", PROJECT)
        _git(*here, "commit", "--quiet", "--message=The orders")
    _git("init", "--quiet", "--bare", "--initial-branch=main", root / "empty.git")
    _git("clone", "--quiet", "--bare", root / "plain.git", root / "headless.git")
    _git("-C", root / "headless.git", "symbolic-ref", "HEAD", "refs/heads/gone")
    return folder


def _serve(request: Request) -> Answer:
    """What ``git http-backend`` answers: a CGI program."""
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": _repositories().name,
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": "&".join(f"{name}={value}" for name, value in request.query.items()),
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
    }
    done = subprocess.run(
        ["git", "http-backend"],
        input=request.body,
        env=environment,
        capture_output=True,
        check=False,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
    status = int(headers.get("Status", "200").split()[0])
    return Answer(body, status, headers.get("Content-Type", "text/plain"))


def _nothing(kind: str) -> Answer:
    return Answer(b"", kind=f"application/x-git-upload-pack-{kind}")


class GitServer(StandIn):
    """Serves the repositories to a client that shows the token as the user's name or password."""

    name = "dbt"
    integration = "dagster-dbt"
    title = "dbt from git"
    packages = ("dbt-core", "dbt-duckdb")
    asks_others = True  # dbt looks for newer versions of itself
    codes: ClassVar = {"empty": frozenset({69})}  # no answer of git's is empty
    requirements = "dagster"
    hosts: ClassVar[tuple[str, ...]] = (rf"[\w-]+\.{DOMAIN}",)
    variables: ClassVar = {"SHOP_GIT_TOKEN": TOKEN}
    endpoints: ClassVar[tuple[Endpoint, ...]] = (
        Endpoint(
            "refs",
            "GET",
            "/{repository}/info/refs",
            _serve,
            lambda _: _nothing("advertisement"),
        ),
        Endpoint(
            "pack",
            "POST",
            "/{repository}/git-upload-pack",
            _serve,
            lambda _: _nothing("result"),
        ),
    )

    def __init__(self, *cases: Case, rate: int | None = None) -> None:
        _repositories()  # before two requests would make them at the same time
        super().__init__(*cases, rate=rate)

    def refusal(self, request: Request, status: int) -> Answer:
        headers = {"WWW-Authenticate": 'Basic realm="git"'} if status == 401 else {}
        return Answer(b"no\n", status, "text/plain", headers)

    def is_signed_in(self, request: Request) -> bool:
        return TOKEN in base64.b64decode(request.bearer).decode().split(":")

    def key(self, case: Case) -> str:
        return f"DbtProjectComponent[{url_of(case.name)}]"

    def host(self, case: Case, endpoint: str) -> str:
        return f"{case.name}.{DOMAIN}"

    def component(self, case: Case) -> str:
        return component(url_of(case.name))

    def assets(self, case: Case) -> set[str]:
        return {"raw_orders", "raw_customers", "stg_orders", "stg_customers", "revenue"}


def component(url: str, path: str = "orders", token: str = "{{ env.SHOP_GIT_TOKEN }}") -> str:
    """The ``defs.yaml`` of a component whose project is in a repository."""
    return f"""
type: dagster_dbt.DbtProjectComponent
attributes:
  project:
    repo_url: {url}
    repo_relative_path: {path}
    token: "{token}"
"""
