"""Buckets: S3 and compatible services, Google Cloud Storage, Azure Blob Storage; with obstore.

obstore (the extra ``store``) reads credentials and endpoints where the vendors' own tools do: the
environment, a profile of the machine, a workload's identity. It retries after 5xx, throttling and
broken connections, with backoff and jitter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from bundler.errors import (
    BundlerError,
    ConfigurationError,
    ToolFailed,
)
from bundler.store.bucket_errors import classified, meant_by
from bundler.store.objects import Buffer, Listed, StoredObject, shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 3  # of one file; several files are transferred concurrently
_RETRIES = 10
_RETRY_SECONDS = 60.0
# Doubled with each attempt, up to the longest.
_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=100), timedelta(seconds=15)
# A read that begins at or after the end of an object.
_AFTER_THE_END = re.compile(r"status code: 416|Wanted range starting at")
# What a URL's parser would leave out of a prefix.
_NO_PREFIX = re.compile(r"[?#]|/\.\.?(/|$)")
_CREATE_ATTEMPTS = 5


class Bucket:
    """`bundler.store.objects.Objects` in a bucket."""

    def __init__(self, url: str, patience: float = _RETRY_SECONDS) -> None:
        self.url = shown(url).rstrip("/")
        self._open = partial(_open, url, self.url, patience)
        self._store = self._open()

    @cached_property
    def _streams(self) -> ObjectStore:
        """For streams, whose bytes are compared with a digest of ours whenever they are read.

        S3 would also include its own digest in each request's signature, which takes as long. Over
        TLS that is not necessary; over plain HTTP the vendors' clients sign, too, and some servers
        require it.
        """
        unsaid = "AWS_UNSIGNED_PAYLOAD" not in os.environ
        if self.url.startswith("s3:") and unsaid and not _plain_http(self.url):
            return self._open({"aws_unsigned_payload": True})
        return self._store

    def get(self, name: str) -> StoredObject | None:
        try:
            with self._errors(f"read {name}"):
                result = obstore.get(self._store, name)
                data = bytes(result.bytes())
        except FileNotFoundError:
            return None
        meta = result.meta
        return StoredObject(data, _tag(meta), meta["last_modified"].timestamp())

    def read(self, name: str, start: int, length: int) -> Buffer:
        with self._errors(f"read {name}"):
            try:
                return obstore.get_range(self._store, name, start=start, length=length)
            except BaseError as error:
                if _AFTER_THE_END.search(str(error)):
                    return b""
                raise

    def exists(self, name: str) -> bool:
        try:
            with self._errors(f"find {name}"):
                obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, data: bytes) -> bool:
        # S3 answers 409 to one of two concurrent writes, although the other may fail, too.
        for _ in range(_CREATE_ATTEMPTS):
            if self._conditional(name, data, "create"):
                return True
            if self.exists(name):
                return False
        raise ToolFailed(
            f"{self.url} refuses to create {name}, which does not exist.",
            hint="Check the URL and the variables that configure the store.",
        )

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        etag, _, version = tag.partition("\n")
        mode = {"e_tag": etag} if not version else {"e_tag": etag, "version": version}
        return self._conditional(name, data, mode)

    def _conditional(self, name: str, data: bytes, mode: Any) -> bool:
        with suppress(FileNotFoundError), self._errors(f"write {name}"):
            try:
                obstore.put(self._store, name, data, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True
        return False  # what was to be replaced has been removed

    def write(self, name: str, chunks: Iterable[Buffer], size: int) -> None:
        failed: list[Exception] = []

        def source() -> Iterator[Buffer]:
            try:
                yield from chunks
            except Exception as error:
                failed.append(error)
                raise

        try:
            with self._errors(f"write {name}"):
                if size <= _CHUNK_BYTES:
                    obstore.put(self._streams, name, b"".join(source()), use_multipart=False)
                else:
                    obstore.put(
                        self._streams,
                        name,
                        source(),
                        chunk_size=_CHUNK_BYTES,
                        max_concurrency=_PARTS_AT_ONCE,
                    )
        except (BundlerError, FileNotFoundError) as error:
            # The library wraps the stream's exception in its own error type.
            if failed:
                raise failed[0] from None
            if not isinstance(error, BundlerError):
                error = classified(error, self.url, f"write {name}")
            in_parts = size > _CHUNK_BYTES
            if not (in_parts and isinstance(error, ToolFailed) and self._has_all(name, size)):
                raise error from None

    def _has_all(self, name: str, size: int) -> bool:
        """Whether an upload is complete. The request that completes it is refused when it is sent
        again after its answer was lost."""
        with suppress(BundlerError, FileNotFoundError), self._errors(f"find {name}"):
            return bool(obstore.head(self._store, name)["size"] == size)
        return False

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                with self._errors(f"delete {name}"):
                    obstore.delete(self._store, name)
            except FileNotFoundError:
                continue

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._errors(f"list {prefix}"):
            for batch in obstore.list(self._store, prefix):
                for meta in batch:
                    yield Listed(meta["path"], meta["size"], meta["last_modified"].timestamp())

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Converts the library's errors into ours; their texts may contain credentials."""
        try:
            yield
        except FileNotFoundError as error:
            if meant := meant_by(error, self.url, action):
                raise meant from None
            raise
        except (BaseError, OSError) as error:
            raise classified(error, self.url, action) from None


def _tag(meta: Any) -> str:
    version = meta.get("version")
    # Google compares generations; the others compare ETags.
    return f"{meta.get('e_tag') or ''}\n{version}" if version else str(meta.get("e_tag") or "")


def _open(url: str, where: str, patience: float, config: Any = None) -> ObjectStore:
    for name, endpoint in _endpoints(url):
        if not re.match(r"https?://[^/]", endpoint):
            raise ConfigurationError(
                f"The environment variable {name} is not a URL.",
                hint="Unset it, or set it to a URL such as https://s3.example.com.",
            )
    unusable = ConfigurationError(
        f"{where} cannot be opened.",
        hint="Check the URL, whose prefix must not contain '?', '#', '//' or '..', and the "
        "variables that configure the store (AWS_…, GOOGLE_…, AZURE_…).",
    )
    if _NO_PREFIX.search(url):
        raise unusable
    try:
        store: ObjectStore = obstore.store.from_url(
            url,
            config=config,
            client_options={"timeout": timedelta(seconds=120), "allow_http": _plain_http(url)},
            retry_config={
                "max_retries": _RETRIES,
                "backoff": {
                    "init_backoff": _FIRST_WAIT,
                    "max_backoff": _LONGEST_WAIT,
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=patience),
            },
        )
    except (BaseError, ValueError, TypeError):
        raise unusable from None
    return store


def _endpoints(url: str) -> list[tuple[str, str]]:
    """The user's own endpoints for a URL, such as a test server on loopback: by their variables."""
    names = {
        "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
        "az": ("AZURE_STORAGE_ENDPOINT",),
        "gs": ("GOOGLE_BASE_URL",),
    }[url.partition("://")[0]]
    return [(name, os.environ[name]) for name in names if name in os.environ]


def _plain_http(url: str) -> bool:
    """Whether an endpoint uses no TLS."""
    account = os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY", "")
    return any(endpoint.startswith("http://") for _, endpoint in _endpoints(url)) or bool(
        re.search(r'"gcs_base_url"\s*:\s*"http://', account)
    )
