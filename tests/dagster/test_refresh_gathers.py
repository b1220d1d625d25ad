"""One of many concurrent requests fails: it is the reason, whatever becomes of the others."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from bundler.errors import BundlerError, Several
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.environments import ROOT, python_of
from tests.support.recording import RecordingListener

HANGING = 3
CODES = {"401": 77, "404": 78, "410": 78, "503": 69, "shape": 65}
WAYS = (
    *("gather", "gather-in-one-session", "gather-and-linger", "task-group"),
    *("task-group-that-asks", "first-exception", "vendor", "swallowing", "timed", "hopeless"),
)


class Server:
    """Answers the fault of a case once all others of that case hang."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._hanging: dict[str, list[socket.socket]] = defaultdict(list)
        self._changed = threading.Condition()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), closing(connection):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return  # a client that is ended before it asks
                data += more
            case, _, asked = data.split(b" ")[1].decode().strip("/").rpartition("/")
            if asked.startswith("hang"):
                self._hang(connection, case)
                return
            with self._changed:
                self._changed.wait_for(lambda: len(self._hanging[case]) == HANGING)
                released = self._hanging[case] if asked == "release" else []
            for hanging in released:
                hanging.shutdown(socket.SHUT_RDWR)
            status = int(asked) if asked.isdigit() else 200
            body = b'{"other": []}'
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _hang(self, connection: socket.socket, case: str) -> None:
        with self._changed:
            self._hanging[case].append(connection)
            self._changed.notify_all()
        connection.recv(1)  # until the client gives up, or the case is released


@contextmanager
def served() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve, daemon=True).start()
    with closing(server):
        yield server


# No exception shows what has happened, or it is a timeout, and what 410 answers is allowed.
UNKNOWN = {("vendor", "410"): 71, ("vendor", "shape"): 71}
UNKNOWN |= {(way, fault): 69 for way in ("swallowing", "hopeless") for fault in ("410", "shape")}
UNKNOWN["hopeless", "404"] = 69
CASES = [
    *(
        (client, way, fault)
        for client in ("aiohttp", "httpx")
        for way in WAYS
        for fault in ("404", "410", "shape")
    ),
    *(("requests", "threads", fault) for fault in ("401", "404", "410", "503")),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, BundlerError]]:
    root = tmp_path_factory.mktemp("gathers") / "project"
    shutil.copytree(ROOT / "tests/projects/refresh_gathers", root)
    options = RefreshOptions(
        over_all=KeyOptions(timeout=60.0, attempts=1, allow_http=("GET *410 410",)),
        jobs=8,
        total_timeout=600,
    )
    with served() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASES", json.dumps(CASES))
        patch.setenv("SERVER", server.url)
        patch.setenv("PYTHONPATH", str(ROOT))
        project = open_project(root, python=python_of("clients"))
        try:
            refresh([project], options, RecordingListener())
        except Several as several:
            yield {failure.key or "": failure for failure in several.failures}


def test_the_request_that_failed_is_the_reason(failures: dict[str, BundlerError]) -> None:
    wrong = [
        f"{key}: {failure.exit_code if failure else 0} {failure.what if failure else ''}"
        for client, way, fault in CASES
        for key in [f"Gathers[{client}/{way}/{fault}]"]
        for failure in [failures.get(key)]
        for code in [UNKNOWN.get((way, fault), CODES[fault])]
        if failure is None
        or failure.exit_code != code
        or ("/hang-" in failure.what) != ((way, fault) in UNKNOWN and code == 69)
    ]
    assert not wrong, "\n".join(wrong)
