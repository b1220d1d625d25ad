"""Engines that fail: what they say in a stream that began with "200 OK" is read, too."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image.engine.config import config_of, history_of
from bundler.artifacts.image.engine.connection import Docker, Engine, NotInEngine
from bundler.artifacts.image.engine.loading import archive_of, load
from bundler.artifacts.image.layer import Layer, Placed
from bundler.errors import ToolFailed, VerificationFailed
from tests.support.bundles import PLACE, make_bundle
from tests.support.engine import install

pytestmark = pytest.mark.engine(offline=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers every request with one status and one body. cut: says that it is longer."""

    daemon_threads = True
    status = 200
    body = b""
    cut = False
    received = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        if self.path.endswith("_ping"):
            self._send(200, b"OK", 0)
            return
        while "chunked" in self.headers.get("Transfer-Encoding", ""):
            size = int(self.rfile.readline(), 16)
            self.server.received += len(self.rfile.read(size))
            self.rfile.readline()
            if not size:
                break
        self._send(self.server.status, self.server.body, 100 if self.server.cut else 0)

    def _send(self, status: int, body: bytes, missing: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + missing))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()


@contextmanager
def engine_that_says(
    folder: Path, body: bytes, status: int = 200, *, cut: bool = False
) -> Iterator[tuple[Engine, _Server]]:
    install("dockerd", "docker.io")
    path = folder / "docker.sock"
    with _Server(str(path), _Handler) as server:
        server.body, server.status, server.cut = body, status, cut
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Docker(options=("-H", f"unix://{path}")).connect(), server
        finally:
            server.shutdown()
            thread.join()


def archive(folder: Path) -> Iterator[bytes]:
    bundle = make_bundle(folder / "state", {"K": {"state": b"x" * 100_000}})
    return archive_of(Layer((Placed(bundle, f"/{PLACE}", ()),)), 1, lambda _: b"{}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":"Loaded"}\r\n{"errorDetail":{},"error":"no space left"}\r\n',
        b'{"stream":"Error unpacking image: wrong diff id calculated"}\r\n',
    ],
)
def test_an_error_in_the_stream_of_a_load_is_a_failure(body: bytes, tmp_path: Path) -> None:
    with engine_that_says(tmp_path, body) as (engine, server):
        with pytest.raises(
            ToolFailed, match=r"rejected the image: .*(no space left|wrong diff id)"
        ):
            load(engine, archive(tmp_path))
        assert server.received > 100_000


def test_a_refused_load_differs_from_a_missing_image(tmp_path: Path) -> None:
    body = b'{"message":"it is what it is"}'
    with (
        engine_that_says(tmp_path, body, 500) as (engine, _),
        pytest.raises(ToolFailed, match="it is what it is") as failure,
    ):
        load(engine, archive(tmp_path))
    assert not isinstance(failure.value, NotInEngine)
    with engine_that_says(tmp_path / "state", body, 404) as (engine, _), pytest.raises(NotInEngine):
        engine.image("x")


def test_a_broken_line_and_nonsense_are_failures_of_the_engine(tmp_path: Path) -> None:
    with (
        engine_that_says(tmp_path, b'{"Id"', cut=True) as (engine, _),
        pytest.raises(ToolFailed),
    ):
        engine.image("x")
    (tmp_path / "two").mkdir()
    with (
        engine_that_says(tmp_path / "two", b"<html>") as (engine, _),
        pytest.raises(ToolFailed, match="invalid JSON"),
    ):
        engine.image("x")
    for number, said in enumerate((b'{"cause":"strange"}', b'["strange"]')):  # no message
        folder = tmp_path / f"refusal{number}"
        folder.mkdir()
        with (
            engine_that_says(folder, said, 500) as (engine, _),
            pytest.raises(ToolFailed, match=r"refused /v1\.41/images/x/json: .*strange"),
        ):
            engine.image("x")


def test_an_archive_that_is_cut_short_is_a_failure(tmp_path: Path) -> None:
    with engine_that_says(tmp_path, b"x" * 10_000, cut=True) as (engine, _):
        for opened in (engine.image_archive("x"), engine.export("x"), engine.archive("x", "/")):
            with pytest.raises(ToolFailed, match="closed the connection"), opened as stream:
                stream.read()


def test_a_state_that_changes_while_it_is_sent_ends_the_load(tmp_path: Path) -> None:
    with engine_that_says(tmp_path, b"") as (engine, _):
        pieces = archive(tmp_path)
        (tmp_path / "state/K/state").write_bytes(b"y" * 100_000)
        with pytest.raises(VerificationFailed, match="K/state changed"):
            load(engine, pieces)


def test_the_history_has_as_many_layers_as_the_image() -> None:
    lines = [
        ("/bin/sh -c #(nop) ADD file:1 in / ", 100),
        ('/bin/sh -c #(nop)  CMD ["sh"]', 0),
        ("WORKDIR /made", 0),
        ("RUN true # buildkit", 0),
        ("ENV A=b", 0),
        ("WORKDIR /there/already", 0),
        ("COPY . . # buildkit", 5),
    ]
    reported = [{"CreatedBy": text, "Size": size, "Created": 1} for text, size in reversed(lines)]
    for layers, making in ((3, {0, 3, 6}), (4, {0, 2, 3, 6}), (2, {0, 6})):
        made = history_of(reported, layers)
        assert {place for place, line in enumerate(made) if "empty_layer" not in line} == making
    with pytest.raises(ToolFailed, match="fewer history entries"):
        config_of({"RootFS": {"Layers": ["x"] * 8}}, reported)
    assert json.dumps(config_of({"RootFS": {}}, []))
