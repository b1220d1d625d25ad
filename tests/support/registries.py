"""Registries for the tests: Debian's ``docker-registry`` and our own, both on loopback.

Ours follows the OCI distribution specification as its conformance tests ask it (blobs in one
piece, in chunks, mounted; manifests; referrers), and can be made to behave badly: to break down at
any one request, to lie about lengths and digests, to keep tags as they are, to ask who one is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.engine import install

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: {quiet}}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"{tls}}}
{auth}
"""
# "s3cret-word", as htpasswd -B writes it.
USER, PASSWORD = "me", "s3cret-word"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuEpHRRKIlpAGo.iP7Bpa.htQEJMAAnRe\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def distribution(
    tls: Mapping[str, Path] | None = None, *, login: bool = False, access_log: Path | None = None
) -> Iterator[str]:
    """Debian's registry; gives its ``127.0.0.1:PORT``.

    tls: the files ``certificate``, ``key`` and perhaps ``clientcas``, by which it wants to see a
    certificate. login: it wants `USER` and `PASSWORD`. access_log: gets a line for each request.
    """
    program = install("docker-registry")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yml")
        files = {name: str(path) for name, path in (tls or {}).items()}
        shown = {**files, **({"clientcas": [files["clientcas"]]} if "clientcas" in files else {})}
        htpasswd = Path(folder, "htpasswd")
        htpasswd.write_text(_HTPASSWD)
        auth = {"htpasswd": {"realm": "test", "path": str(htpasswd)}}
        config.write_text(
            _CONFIG.format(
                root=f"{folder}/data",
                port=port,
                tls=f", tls: {json.dumps(shown)}" if shown else "",
                auth=f"auth: {json.dumps(auth)}" if login else "",
                quiet=json.dumps(access_log is None),
            )
        )
        with open(access_log or os.devnull, "wb") as log:
            process = subprocess.Popen(
                [program, "serve", config], stdout=log, stderr=subprocess.DEVNULL
            )
        try:
            _wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "docker-registry ended"
            assert time.monotonic() < deadline, "docker-registry does not listen"
            time.sleep(0.05)
        else:
            return


@dataclass
class Registry:
    """What our own registry has, and how it behaves.

    fault: is asked before each request is answered, with its number (from 0), method and path;
    gives a status to answer with, ``drop`` to break the connection, ``half`` to break the answer
    in its middle, or None. user: wants this user and password. token: by a token service.
    lines: how many connections it has had.
    """

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    fault: Callable[[int, str, str], int | str | None] = lambda *_: None
    user: tuple[str, str] | None = None
    token: bool = False
    immutable: bool = False
    knows_referrers: bool = True
    mounts: bool = True
    retry_after: str | None = None
    mend: Callable[[str, bytes], bytes] = lambda _, body: body
    claims_length: int | None = None
    redirect: str | None = None
    host: str = ""
    lines: int = 0

    def tag(self, repository: str, name: str) -> str | None:
        return self.tags.get((repository, name))

    def manifest(self, repository: str, what: str) -> Any:
        digest = self.tags.get((repository, what), what)
        return json.loads(self.manifests[repository, digest][1])

    def requests(self, pattern: str) -> list[str]:
        return [line for line in self.log if re.search(pattern, line)]


@contextmanager
def running(registry: Registry | None = None) -> Iterator[Registry]:
    """Our own registry, listening; ``registry.host`` is where."""
    registry = registry or Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


_NAME = r"(?P<name>[a-z0-9._/-]+)"
_ROUTES = [
    (re.compile(rf"/v2/{_NAME}/blobs/uploads/(?P<what>[^/]*)"), "upload"),
    (re.compile(rf"/v2/{_NAME}/blobs/(?P<what>[^/]+)"), "blob"),
    (re.compile(rf"/v2/{_NAME}/manifests/(?P<what>[^/]+)"), "manifest"),
    (re.compile(rf"/v2/{_NAME}/referrers/(?P<what>[^/]+)"), "referrers"),
]


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two packets would wait for an acknowledgement

    def setup(self) -> None:
        super().setup()
        self.registry.lines += 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its signature
        pass

    def _serve(self) -> None:
        registry = self.registry
        number = len(registry.log)
        registry.log.append(f"{self.command} {self.path}")
        registry.headers.append(dict(self.headers.items()))
        self.half = False
        fault = registry.fault(number, self.command, self.path)
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "half":
            self.half = True
        parts = urlsplit(self.path)  # with a host where we are asked as a proxy
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if isinstance(fault, int):
            self._body()
            more = {"Retry-After": registry.retry_after} if registry.retry_after else {}
            if fault == 401:
                more["WWW-Authenticate"] = 'Basic realm="test"'
            self._error(fault, "FAULT", "as the test wants it", **more)
            return
        if parts.path == "/token":
            self._token()
            return
        if not self._is_allowed():
            return
        if parts.path == "/v2/":
            self._answer(200, b"{}")
            return
        for pattern, kind in _ROUTES:
            found = pattern.fullmatch(parts.path)
            if found:
                getattr(self, f"_{kind}")(found["name"], found["what"])
                return
        self._body()
        self._error(404, "UNSUPPORTED", "no such route")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815  # http.server

    # --- who asks

    def _is_allowed(self) -> bool:
        registry = self.registry
        if registry.user is None:
            return True
        given = self.headers.get("Authorization", "")
        basic = base64.b64encode(":".join(registry.user).encode()).decode()
        wanted = "Bearer good" if registry.token else f"Basic {basic}"
        if given == wanted:
            return True
        self._body()
        challenge = 'Basic realm="test"'
        if registry.token:
            challenge = f'Bearer realm="http://{registry.host}/token",service="test"'
        more = {"WWW-Authenticate": challenge}
        self._error(401, "UNAUTHORIZED", "who are you?", **more)
        return False

    def _token(self) -> None:
        assert self.registry.user is not None
        basic = base64.b64encode(":".join(self.registry.user).encode()).decode()
        sent = parse_qs(self._body().decode())
        good = self.headers.get("Authorization") == f"Basic {basic}"
        good = good or sent.get("refresh_token") == ["identity"]
        self._answer(200 if good else 401, b'{"token": "good"}' if good else b"{}")

    # --- blobs

    def _blob(self, name: str, what: str) -> None:
        data = self.registry.blobs.get((name, what))
        if data is None:
            self._error(404, "BLOB_UNKNOWN", "no such blob")
            return
        if self.registry.redirect is not None:
            self._answer(307, b"", Location=f"{self.registry.redirect}/{what}")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self._answer(206 if wanted else 200, self.registry.mend(what, data)[start:])

    def _upload(self, name: str, what: str) -> None:
        registry = self.registry
        if self.command == "POST":
            self._open_upload(name)
            return
        if what not in registry.uploads:
            self._body()
            self._error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
            return
        got = registry.uploads[what]
        where = {"Location": f"/v2/{name}/blobs/uploads/{what}"}
        if self.command == "GET":
            self._answer(204, b"", **where, Range=f"0-{max(0, len(got) - 1)}")
        elif self.command == "PATCH":
            got += self._body(half_into=got)
            self._answer(202, b"", **where, Range=f"0-{max(0, len(got) - 1)}")
        elif self.command == "DELETE":
            del registry.uploads[what]
            self._answer(204, b"")
        else:
            data = bytes(got) + self._body()
            if digest_of(data) != self.query.get("digest"):
                self._error(400, "DIGEST_INVALID", "not its digest")
                return
            registry.blobs[name, digest_of(data)] = data
            del registry.uploads[what]
            self._answer(201, b"", Location=f"/v2/{name}/blobs/{digest_of(data)}")

    def _open_upload(self, name: str) -> None:
        registry = self.registry
        self._body()
        other = self.query.get("from", ""), self.query.get("mount", "")
        if registry.mounts and other in registry.blobs:
            registry.blobs[name, other[1]] = registry.blobs[other]
            self._answer(201, b"", Location=f"/v2/{name}/blobs/{other[1]}")
            return
        identity = f"u{len(registry.log)}"
        registry.uploads[identity] = bytearray()
        self._answer(202, b"", Location=f"/v2/{name}/blobs/uploads/{identity}?state=x")

    # --- manifests

    def _manifest(self, name: str, what: str) -> None:
        registry = self.registry
        if self.command == "PUT":
            self._put_manifest(name, what)
            return
        found = registry.manifests.get((name, registry.tags.get((name, what), what)))
        if found is None:
            self._error(404, "MANIFEST_UNKNOWN", "no such manifest")
            return
        self._answer(200, registry.mend(what, found[1]), **{"Content-Type": found[0]})

    def _put_manifest(self, name: str, what: str) -> None:
        registry = self.registry
        body = self._body()
        digest, manifest = digest_of(body), json.loads(body)
        if what.startswith("sha256:"):
            if what != digest:
                self._error(400, "DIGEST_INVALID", "not its digest")
                return
        elif registry.immutable and registry.tags.get((name, what), digest) != digest:
            self._error(409, "TAG_IMMUTABLE", f"the tag {what} exists and stays as it is")
            return
        named = [manifest["config"], *manifest["layers"]] if "config" in manifest else []
        children = manifest.get("manifests", [])
        if any((name, item["digest"]) not in registry.blobs for item in named) or any(
            (name, item["digest"]) not in registry.manifests for item in children
        ):
            self._error(400, "MANIFEST_BLOB_UNKNOWN", "it names what is not here")
            return
        registry.manifests[name, digest] = (self.headers["Content-Type"], body)
        if not what.startswith("sha256:"):
            registry.tags[name, what] = digest
        more = {"Docker-Content-Digest": digest}
        if registry.knows_referrers and "subject" in manifest:
            more["OCI-Subject"] = manifest["subject"]["digest"]
        self._answer(201, b"", **more)

    def _referrers(self, name: str, what: str) -> None:
        if not self.registry.knows_referrers:
            self._error(404, "UNSUPPORTED", "no referrers")
            return
        found = []
        for (repository, digest), (media_type, body) in self.registry.manifests.items():
            manifest = json.loads(body)
            if repository == name and (manifest.get("subject") or {}).get("digest") == what:
                entry = {"mediaType": media_type, "digest": digest, "size": len(body)}
                found.append({**entry, "artifactType": manifest.get("artifactType")})
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        self._answer(200, json.dumps(index).encode(), **{"Content-Type": OCI_INDEX})

    # --- the wire

    def _body(self, half_into: bytearray | None = None) -> bytes:
        """The request's body. Where the answer is to break, an upload keeps half of it."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
                if self.half and half_into is not None:
                    half_into += b"".join(pieces)
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return b""
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, body, **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        if self.close_connection and self.half:
            return
        self.send_response(status)
        length = len(body) if self.registry.claims_length is None else self.registry.claims_length
        for name, value in {"Content-Length": str(length), **headers}.items():
            if status != 204 or name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()
        if self.half:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(body)
