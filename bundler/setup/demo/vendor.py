"""A vendor's HTTP API on loopback: what the demo fetches state from.

``GET /v1/<catalogue>?page=N`` with the header ``Authorization: Bearer <token>`` answers one page::

    {"items": [{"id": "tea-assam", "name": "Assam", …}], "next": 2, "total": 25}

with ``next`` null on the last page. It can be stopped, so that connections are refused, and started
again at the same address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

Item = Mapping[str, object]

HOST = "127.0.0.1"
TOKEN = "vendor-token-of-the-demo"  # noqa: S105  # opens nothing but this loopback server
_PAGE_SIZE = 10


def standard_catalogs() -> dict[str, list[Item]]:
    """25 products and 4 suppliers."""
    leaves = ("assam", "sencha", "oolong", "keemun", "rooibos")
    kinds = (("tea", 690), ("tin", 350), ("mug", 1200), ("kettle", 4900), ("sampler", 1550))
    products: list[Item] = [
        {"id": f"{kind}-{leaf}", "name": f"{leaf.title()} {kind}", "price_cents": price + 10 * rank}
        for kind, price in kinds
        for rank, leaf in enumerate(leaves)
    ]
    countries = {"Brahmaputra": "IN", "Uji": "JP", "Anxi": "CN", "Cederberg": "ZA"}
    suppliers: list[Item] = [
        {"id": name.lower(), "name": name, "country": country}
        for name, country in countries.items()
    ]
    return {"products": products, "suppliers": suppliers}


class VendorApi:
    """The server, in its own thread; a context manager that starts and stops it.

    catalogs: name to items, read at each request, so that a change has an immediate effect.
    """

    def __init__(self) -> None:
        self.token = TOKEN
        self.catalogs = standard_catalogs()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The base URL; the same after a stop and a start."""
        return f"http://{HOST}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"SHOP_API_URL": self.url, "SHOP_API_TOKEN": self.token}

    def start(self) -> None:
        """Serves at the previous port, else at a free one."""
        if self._server is None:
            server = _Server((HOST, self._port), _Handler)
            server.api = self
            self._server = server
            self._port = server.server_port
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def answer(self, target: str, authorization: str | None) -> tuple[int, dict[str, object]]:
        url = urlsplit(target)
        page = parse_qs(url.query).get("page", ["1"])[0]
        if authorization != f"Bearer {self.token}":
            return 401, {"error": "who are you?"}
        items = self.catalogs.get(url.path.removeprefix("/v1/"))
        if items is None or not page.isdigit() or page == "0":
            return 404, {"error": "no such page"}
        return 200, _page(items, int(page))


def _page(items: Sequence[Item], page: int) -> dict[str, object]:
    end = page * _PAGE_SIZE
    return {
        "items": items[end - _PAGE_SIZE : end],
        "next": page + 1 if end < len(items) else None,
        "total": len(items),
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: VendorApi


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        status, answer = self.server.api.answer(self.path, self.headers.get("Authorization"))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # One request per connection: none outlives `stop`.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keeps the terminal quiet."""
