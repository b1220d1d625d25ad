"""Google Cloud Storage on loopback, in its XML language, over gcp-storage-emulator.

The emulator speaks the JSON language alone, and checks no conditions; obstore speaks the XML one.
Nor does fake-gcs-server, the other one that there is (in Go), check them in that language; Google's
own test bench is in no registry.
This front keeps its objects in the emulator and does what the XML language adds: conditions on
generations, multipart uploads, listings. Prints its port, then serves until it is ended.
"""

from __future__ import annotations

import re
import threading
import time
import urllib.error
import urllib.request
import uuid
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from gcp_storage_emulator.server import create_server

BUCKET = "states"


class Emulator:
    """The emulator's objects, by its own language."""

    def __init__(self) -> None:
        self.server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
        self.server.start()
        port = self.server._api._httpd.server_address[1]
        self.root = f"http://127.0.0.1:{port}"

    def _ask(self, url: str, method: str = "GET", body: bytes | None = None) -> bytes:
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self.root + url, body, kind, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: bytes = answer.read()
            return found

    def get(self, name: str) -> bytes | None:
        try:
            return self._ask(f"/download/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def put(self, name: str, data: bytes) -> None:
        where = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
        self._ask(where, "POST", data)

    def delete(self, name: str) -> None:
        self._ask(f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}", "DELETE")


class Store:
    """What the XML language knows of the objects beyond their bytes: generations and times."""

    def __init__(self) -> None:
        self.emulator = Emulator()
        self.lock = threading.Lock()
        self.known: dict[str, tuple[int, float, int]] = {}  # generation, time, size
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.generation = 1000

    def put(self, name: str, data: bytes, condition: str | None) -> int | None:
        """The new generation; None where the condition does not hold."""
        with self.lock:
            now = self.known.get(name, (0, 0.0, 0))[0]
            if condition is not None and int(condition) != now:
                return None
            self.emulator.put(name, data)
            self.generation += 1
            self.known[name] = (self.generation, time.time(), len(data))
            return self.generation

    def delete(self, name: str) -> bool:
        with self.lock:
            if self.known.pop(name, None) is None:
                return False
            self.emulator.delete(name)
            return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def _parts(self) -> tuple[str, str, dict[str, str]]:
        url = urlsplit(self.path)
        bucket, _, name = url.path.lstrip("/").partition("/")
        query = parse_qs(url.query, keep_blank_values=True)
        return bucket, unquote(name), {key: values[0] for key, values in query.items()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def do_GET(self) -> None:
        bucket, name, query = self._parts()
        if bucket != BUCKET:
            return self._error(404, "NoSuchBucket")
        if not name:
            return self._list(query.get("prefix", ""))
        known, data = self.store.known.get(name), self.store.emulator.get(name)
        if known is None or data is None:
            return self._error(404, "NoSuchKey")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        more = {}
        if found:
            start, end = int(found[1]), min(int(found[2]), len(data) - 1)
            more["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
            data = data[start : end + 1]
        return self._answer(206 if found else 200, data, **_headers(known), **more)

    do_HEAD = do_GET  # noqa: N815  # the name that the library looks for

    def do_PUT(self) -> None:
        bucket, name, query = self._parts()
        data = self._body()
        if bucket != BUCKET:
            return self._error(404, "NoSuchBucket")
        if "uploadId" in query:
            self.store.uploads[query["uploadId"]][int(query["partNumber"])] = data
            return self._answer(200, ETag=f'"{query["partNumber"]}"')
        made = self.store.put(name, data, self.headers.get("x-goog-if-generation-match"))
        if made is None:
            return self._error(412, "PreconditionFailed")
        return self._answer(200, **_headers(self.store.known[name]))

    def do_POST(self) -> None:
        _, name, query = self._parts()
        self._body()
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.store.uploads[upload] = {}
            text = f"<UploadId>{upload}</UploadId><Bucket>{BUCKET}</Bucket><Key>k</Key>"
            kind = "InitiateMultipartUploadResult"
            return self._answer(200, f"<{kind}>{text}</{kind}>".encode())
        parts = self.store.uploads.pop(query["uploadId"])
        self.store.put(name, b"".join(parts[number] for number in sorted(parts)), None)
        known = self.store.known[name]
        kind = "CompleteMultipartUploadResult"
        text = f"<{kind}><ETag>&quot;{known[0]}&quot;</ETag></{kind}>"
        return self._answer(200, text.encode(), **_headers(known))

    def do_DELETE(self) -> None:
        _, name, query = self._parts()
        if "uploadId" in query:
            self.store.uploads.pop(query["uploadId"], None)
            return self._answer(204)
        return self._answer(204) if self.store.delete(name) else self._error(404, "NoSuchKey")

    def _list(self, prefix: str) -> None:
        rows = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{_iso(known[1])}</LastModified>"
            f"<ETag>&quot;{known[0]}&quot;</ETag><Size>{known[2]}</Size></Contents>"
            for name, known in sorted(self.store.known.items())
            if name.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())

    def log_message(self, *_: object) -> None:
        pass


def _headers(known: tuple[int, float, int]) -> dict[str, str]:
    return {
        "ETag": f'"{known[0]}"',
        "Last_Modified": formatdate(known[1], usegmt=True),
        "x_goog_generation": str(known[0]),
    }


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))


if __name__ == "__main__":
    Handler.store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
