"""The part of GitHub's and GitLab's APIs that lists, makes and changes comments, on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self


class Comments:
    """Comments by the path of what they are on; GitHub changes one by a path without the number."""

    token = "a-token-of-the-api"

    def __init__(self) -> None:
        self._comments: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fill(self, path: str, count: int) -> None:
        """Comments of other people."""
        for _ in range(count):
            self.make(path, "A remark that quotes <!-- state-bundler plan -->")

    def make(self, path: str, body: str) -> dict[str, Any]:
        comment = {"id": len(self._comments) + 1, "body": body, "path": path}
        self._comments.append(comment)
        return comment

    def ours(self, mark: str) -> list[str]:
        return [it["body"] for it in self._comments if it["body"].startswith(mark)]

    def page(self, path: str, size: int, number: int) -> list[dict[str, Any]]:
        found = [it for it in self._comments if it["path"] == path]
        return found[(number - 1) * size : number * size]

    def change(self, path: str, body: str) -> dict[str, Any]:
        comment = self._comments[int(path.rpartition("/")[2]) - 1]
        comment["body"] = body
        return comment


def _handler(comments: Comments) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            self._answer(lambda: comments.page(url.path, query["per_page"], query["page"]))

        def do_POST(self) -> None:
            body = self._body()
            self._answer(lambda: comments.make(self.path, body), 201)

        def do_PATCH(self) -> None:
            body = self._body()
            self._answer(lambda: comments.change(self.path, body))

        def do_PUT(self) -> None:
            self.do_PATCH()

        def _body(self) -> str:
            length = int(self.headers["Content-Length"])
            return str(json.loads(self.rfile.read(length))["body"])

        def _answer(self, work: Any, status: int = 200) -> None:
            given = (self.headers.get("Authorization"), self.headers.get("PRIVATE-TOKEN"))
            if given not in ((f"Bearer {comments.token}", None), (None, comments.token)):
                status, answer = 401, {"message": "Bad credentials"}
            else:
                answer = work()
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
