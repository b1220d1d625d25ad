"""moto's S3 server on loopback, made atomic.

Runs in an environment of its own (``tests/requirements/moto.txt``), started by `stores`. moto
checks a condition and writes in two steps: here one request writes at a time, as S3 promises it.
It also looks at who asks. Prints its port, then serves until it is ended.
"""

from __future__ import annotations

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

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        if f"Credential={KEY_ID}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _error(start, 403, "InvalidAccessKeyId")
        if environ["REQUEST_METHOD"] == "GET":
            return self.app(environ, start)
        with self.writing:
            return list(self.app(environ, start))


def _error(start: Any, status: int, code: str) -> list[bytes]:
    start(f"{status} Error", [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass

    def connection_dropped(self, *_: Any, **__: Any) -> None:
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Front(), threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()
