"""moto's S3 server on loopback, made atomic, with faults on request.

Runs in an environment of its own (``tests/requirements/moto.txt``), started by `stores`. moto
checks a condition and writes in two steps: here one request writes at a time, as S3 promises it.
Prints its port, then serves until it is ended.

    PUT /@faults    a JSON list of faults; each is used up by the requests that it matches:
                    {"method", "contains", "times", "skip", and one of
                     "status" + "code"    answer with this error
                     "lost": true         carry it out, then break the connection
                     "cut": true          break the connection before it is carried out}
    GET /@requests  the requests so far, as a JSON list of "METHOD path"; forgets them
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY_ID = "AKIATESTTESTTESTTEST"


class Front:
    """The WSGI application in front of moto's."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.writing = threading.RLock()
        self.faults: list[dict[str, Any]] = []
        self.requests: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith("/@"):
            return self._control(method, path, environ, start)
        self.requests.append(f"{method} {path}")
        if f"Credential={KEY_ID}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _error(start, 403, "InvalidAccessKeyId")
        fault = self._fault(f"{method} {path}?{environ.get('QUERY_STRING', '')}", method)
        if fault and "status" in fault:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _error(start, fault["status"], fault["code"])
        if fault and "cut" in fault:
            environ["wsgi.input"].read(min(1000, int(environ.get("CONTENT_LENGTH") or 0)))
            return _break(environ)
        if method == "GET":
            return self.app(environ, start)
        with self.writing:
            answer = list(self.app(environ, start))
        return _break(environ) if fault else answer

    def _fault(self, line: str, method: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["contains"] in line and fault.get("method", method) == method:
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                    continue
                fault["times"] -= 1
                if not fault["times"]:
                    self.faults.remove(fault)
                return fault
        return None

    def _control(self, method: str, path: str, environ: dict[str, Any], start: Any) -> Any:
        if path == "/@faults" and method == "PUT":
            self.faults = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        told, self.requests = self.requests, []
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]


def _error(start: Any, status: int, code: str) -> list[bytes]:
    start(f"{status} Error", [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


def _break(environ: dict[str, Any]) -> list[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass

    def connection_dropped(self, *_: Any, **__: Any) -> None:
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Front(), threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()
