"""An S3 server on loopback that keeps objects in files, for measuring clients, and nothing else.

moto's reads a whole object for every range that is asked of it, and puts large ones together in
memory: with gigabytes one would measure moto. This one sends files by ``sendfile``, and checks the
conditions of writes. It looks at no signature. Prints its port, then serves until it is ended.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Object:
    """parts: files, one after the other, with their sizes in bytes."""

    parts: tuple[tuple[Path, int], ...]
    tag: str
    modified: float

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts)

    def spans(self, start: int, length: int) -> Iterator[tuple[Path, int, int]]:
        """The files that hold some bytes: where to begin in each, and how many to take."""
        for path, size in self.parts:
            take = min(size - start, length)
            if start < size and take > 0:
                yield path, start, take
                length -= take
            start = max(0, start - size)


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.Lock()
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, dict[int, tuple[Path, int]]] = {}
        self.tags = itertools.count(1)

    def receive(self, stream: BinaryIO, size: int) -> tuple[Path, int]:
        path = self.root / uuid.uuid4().hex
        left = size
        with path.open("wb") as target:
            while left and (chunk := stream.read(min(_CHUNK, left))):
                left -= target.write(chunk)
        return path, size

    def put(self, name: str, parts: tuple[tuple[Path, int], ...], **conditions: str | None) -> str:
        """The new tag; empty where the conditions do not hold."""
        with self.lock:
            now = self.objects.get(name)
            match, none_match = conditions.get("match"), conditions.get("none_match")
            if (none_match == "*" and now) or (match and (now is None or now.tag != match)):
                return ""
            # A hyphen in it says that it is no MD5: clients do not compare it with theirs.
            made = Object(parts, f'"{next(self.tags):032x}-1"', time.time())
            self.objects[name] = made
        self._unlink(now)
        return made.tag

    def delete(self, name: str) -> None:
        with self.lock:
            before = self.objects.pop(name, None)
        self._unlink(before)

    def _unlink(self, item: Object | None) -> None:
        for path, _ in item.parts if item else ():
            path.unlink(missing_ok=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second would wait for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    store: Store

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        name = unquote(url.path).lstrip("/").partition("/")[2]
        return name, {key: values[0] for key, values in query.items()}

    @property
    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-bucket-region", "us-east-1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def do_GET(self) -> None:
        name, query = self._asked()
        if not name:
            return self._xml("LocationConstraint", "") if "location" in query else self._list(query)
        item = self.store.objects.get(name)
        if item is None:
            return self._error(404, "NoSuchKey")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        end = min(int(found[2]) if found and found[2] else item.size, item.size - 1)
        length = max(0, end - start + 1)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end}/{item.size}")
        self.send_header("ETag", item.tag)
        self.send_header("Last-Modified", formatdate(item.modified, usegmt=True))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.flush()
            for path, offset, count in item.spans(start, length):
                with path.open("rb") as stream:
                    self.connection.sendfile(stream, offset, count)
        return None

    do_HEAD = do_GET  # noqa: N815  # the name that the library looks for

    def do_PUT(self) -> None:
        name, query = self._asked()
        part = self.store.receive(self.rfile, self._length)
        if not name:
            return self._answer(200)
        if "uploadId" in query:
            self.store.uploads[query["uploadId"]][int(query["partNumber"])] = part
            return self._answer(200, ETag=f'"{query["partNumber"]}"')
        conditions = {
            "match": self.headers.get("If-Match"),
            "none_match": self.headers.get("If-None-Match"),
        }
        tag = self.store.put(name, (part,), **conditions)
        return self._answer(200, ETag=tag) if tag else self._error(412, "PreconditionFailed")

    def do_POST(self) -> None:
        name, query = self._asked()
        body = self.rfile.read(self._length)
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.store.uploads[upload] = {}
            inner = f"<Bucket>states</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
            return self._xml("InitiateMultipartUploadResult", inner)
        if "delete" in query:
            gone = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in gone:
                self.store.delete(unescape(key))
            inner = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in gone)
            return self._xml("DeleteResult", inner)
        parts = self.store.uploads.pop(query["uploadId"])
        tag = self.store.put(name, tuple(parts[number] for number in sorted(parts)))
        inner = f"<Key>{escape(name)}</Key><ETag>{escape(tag)}</ETag>"
        return self._xml("CompleteMultipartUploadResult", inner)

    def do_DELETE(self) -> None:
        self.store.delete(self._asked()[0])
        self._answer(204)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        rows, folders = [], {}
        for name, item in sorted(self.store.objects.items()):
            rest = name.removeprefix(prefix) if name.startswith(prefix) else ""
            if not rest and name != prefix:
                continue
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = True
                continue
            moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(item.modified))
            rows.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>{moment}</LastModified>"
                f"<ETag>{escape(item.tag)}</ETag><Size>{item.size}</Size></Contents>"
            )
        common = [f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in folders]
        counted = f"<KeyCount>{len(rows) + len(common)}</KeyCount><IsTruncated>false</IsTruncated>"
        inner = f"<Name>states</Name><Prefix>{escape(prefix)}</Prefix>{counted}"
        self._xml("ListBucketResult", inner + "".join([*rows, *common]))

    def _xml(self, kind: str, inner: str) -> None:
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        self._answer(200, f"<{kind} {space}>{inner}</{kind}>".encode(), Content_Type="text/xml")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # some clients just hang up
            super().handle_error(request, client_address)


if __name__ == "__main__":
    with TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        Handler.store = Store(Path(folder))
        server = Server(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        print(server.server_address[1], flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
