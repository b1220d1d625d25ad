"""Every row of the fault table, for every HTTP client, in one refresh against a bad server."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from bundler.errors import BundlerError, Several
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.environments import ROOT, python_of
from tests.support.faultserver import FaultServer
from tests.support.recording import RecordingListener

if TYPE_CHECKING:
    from typing_extensions import Self

CLIENTS = (
    "requests",
    "urllib3",
    "urllib",
    "http.client",
    "httpx",
    "httpx-async",
    "aiohttp",
    "requests-async",
    "vendor",
)
TOKEN = "canary-token-0123456789"
TIMEOUT = 8.0
ATTEMPTS = 2
# fault -> exit code and the most attempts that make sense
PATHS: dict[str, tuple[int, int]] = {
    "reset": (69, 2),
    "closed": (69, 2),
    "silent": (69, 2),
    "slow-headers": (69, 2),
    "drip": (69, 1),
    "429": (69, 2),
    "429-21600": (69, 1),
    "500": (69, 2),
    "503": (69, 2),
    "408": (69, 2),
    "401": (77, 1),
    "403": (77, 1),
    "404": (78, 1),
    "410": (78, 1),
    "400": (78, 1),
    "html": (69, 2),
    "html-as-json": (69, 2),
    "cut-body": (69, 2),
    "cut-json": (69, 2),
    "cut-chunks": (69, 2),
    "no-http": (69, 2),
    "wrong-shape": (65, 1),
    "null": (65, 1),
    "empty": (65, 1),
    "500@2": (69, 2),
    "swallow-500@2": (69, 2),
    "swallow-404@3": (78, 1),
    "swallow-closed@2": (69, 2),
    "swallow-cut-body@2": (69, 2),
    "reflect": (77, 1),
    "steer": (69, 2),
}


class Lag:
    """The longest that this machine kept a thread waiting that wanted to run; a context manager."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._measure, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _measure(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            time.sleep(0.02)
            self.seconds = max(self.seconds, time.monotonic() - began - 0.02)


@dataclass(frozen=True)
class Outcome:
    """What a refresh of every client against every fault came to, by key.

    lag: in seconds, what this machine kept a program waiting at most while it went on.
    """

    failures: dict[str, BundlerError]
    listener: RecordingListener
    requests: dict[str, int]
    published: bool
    lag: float


def _refresh(
    root: Path,
    bases: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    clients: str = "",
    allow_http: tuple[str, ...] = (),
) -> tuple[dict[str, BundlerError], RecordingListener]:
    shutil.copytree(ROOT / "tests/projects/refresh_clients", root)
    monkeypatch.setenv("FAULTS", json.dumps(bases))
    monkeypatch.setenv("CLIENTS", clients or " ".join(CLIENTS))
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    # A machine that is busy answers late: less would be a timeout where another fault was meant.
    monkeypatch.setenv("CLIENT_TIMEOUT", "2.5")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project = open_project(root, python=python_of("clients"))
    listener = RecordingListener()
    options = RefreshOptions(
        over_all=KeyOptions(timeout=TIMEOUT, attempts=ATTEMPTS, allow_http=allow_http),
        jobs=12,  # more only wait for two cores, and a deadline counts that wait
        total_timeout=300,
    )
    try:
        refresh([project], options, listener)
    except Several as several:
        return {failure.key or "": failure for failure in several.failures}, listener
    except BundlerError as failure:
        return {failure.key or "": failure}, listener
    return {}, listener


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    root = tmp_path_factory.mktemp("outages") / "project"
    with (
        FaultServer() as server,
        FaultServer(at_once=True) as rude,
        pytest.MonkeyPatch.context() as patch,
        Lag() as lag,
    ):
        bases = {fault: server.of(fault) for fault in PATHS}
        bases["reset-at-once"] = rude.of("x")
        bases["refused"] = "http://127.0.0.1:1"
        bases["dns"] = "http://nowhere.invalid:80"
        failures, listener = _refresh(root, bases, patch)
        yield Outcome(
            failures,
            listener,
            dict(server.requests),
            (root / "state/@manifest.json").exists(),
            lag.seconds,
        )


ALL = {**PATHS, "reset-at-once": (69, 2), "refused": (69, 2), "dns": (69, 2)}


def test_every_fault_is_classified_by_what_happened(outcome: Outcome) -> None:
    wrong = [
        f"{key}: {failure.exit_code if failure else 0} {failure.what if failure else ''}"
        for fault, (code, _) in ALL.items()
        for client in CLIENTS
        for key in [f"Fetches[{client}/{fault}]"]
        for failure in [outcome.failures.get(key)]
        if failure is None or failure.exit_code != code
    ]
    total = len(ALL) * len(CLIENTS)
    assert len(wrong) <= total * 0.02, "\n".join(wrong)


def test_no_fault_is_taken_for_success_and_nothing_is_published(outcome: Outcome) -> None:
    assert len(outcome.failures) == len(ALL) * len(CLIENTS)
    assert not outcome.published


def test_every_failure_names_its_key_and_what_to_do(outcome: Outcome) -> None:
    for key, failure in outcome.failures.items():
        assert failure.what.startswith(f"{key}: "), failure.what
        assert failure.hint, failure.what


def test_no_deadline_is_missed(outcome: Outcome) -> None:
    # To end a key takes a few turns on the processor; what others take of it is not ours.
    most = TIMEOUT + 2 + 4 * outcome.lag
    late = {key: took for key, took in outcome.listener.took.items() if took > most}
    assert not late, most


def test_attempts_are_as_many_as_make_sense(outcome: Outcome) -> None:
    for fault, (_, most) in ALL.items():
        for client in CLIENTS:
            assert outcome.listener.attempts[f"Fetches[{client}/{fault}]"] <= most, (client, fault)
    for fault in PATHS:
        asked = outcome.requests.get(f"/{fault}/v1/items?page=1&secret=in-the-query", 0)
        # aiohttp itself asks a second time where a connection is reset.
        assert asked <= ATTEMPTS * (len(CLIENTS) + 1), fault


def test_no_word_of_it_holds_a_secret_a_query_or_a_control_character(outcome: Outcome) -> None:
    words = [*outcome.listener.texts]
    for failure in outcome.failures.values():
        words += [failure.what, failure.hint]
    text = "\n".join(words)
    assert TOKEN not in text
    assert "in-the-query" not in text
    assert "\x1b" not in text


def test_a_server_whose_clock_is_wrong_and_a_status_that_is_expected_are_no_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer() as server:
        bases = {name: server.of(name) for name in ("old-clock", "swallow-404@2")}
        failures, listener = _refresh(
            tmp_path / "project", bases, monkeypatch, "requests", ("GET /swallow-404@2/* 404",)
        )
    assert not failures
    assert any("clock" in word and "old-clock" in word for word in listener.texts)


# --- TLS and proxies ---------------------------------------------------------------------------

_TRUSTING = "requests urllib3 urllib http.client httpx httpx-async aiohttp vendor"


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path


def test_a_certificate_that_is_not_accepted_is_unavailable_and_not_retried(
    authority: tuple[trustme.CA, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, path = authority
    past = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    certificates = {
        "expired": ca.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(year=2021)),
        "other-host": ca.issue_cert("somewhere.example.org"),
        "untrusted": trustme.CA().issue_cert("127.0.0.1"),
    }
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(path))
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(FaultServer(tls=_context(certificate)))
            for name, certificate in {**certificates, "good": ca.issue_cert("127.0.0.1")}.items()
        }
        bases = {name: server.of(name) for name, server in servers.items()}
        failures, listener = _refresh(tmp_path / "project", bases, monkeypatch, _TRUSTING)
    assert set(failures) == {
        f"Fetches[{client}/{name}]" for client in _TRUSTING.split() for name in certificates
    }
    assert {failure.exit_code for failure in failures.values()} == {69}
    assert all(listener.attempts[key] == 1 for key in failures)
    assert "it has expired" in failures["Fetches[requests/expired]"].what
    assert "it is for another host" in failures["Fetches[aiohttp/other-host]"].what


@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (502, 2)])
def test_a_proxy_that_refuses_is_unavailable(
    status: int, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = "requests urllib httpx httpx-async aiohttp"
    with FaultServer(proxy=status) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:proxy-password@127.0.0.1:{proxy.port}")
        bases = {"https": "https://api.example.org", "http": "http://api.example.org"}
        failures, listener = _refresh(tmp_path / "project", bases, monkeypatch, clients)
    assert len(failures) == 2 * len(clients.split())
    assert {failure.exit_code for failure in failures.values()} == {69}
    assert {listener.attempts[key] for key in failures} == {attempts}, failures
    assert all("proxy-password" not in f.what + f.hint for f in failures.values())
