"""Buckets: S3 and compatible services, Google Cloud Storage, Azure Blob Storage; with obstore.

obstore (the extra ``store``) reads credentials and endpoints where the vendors' own tools do: the
environment, a profile of the machine, a workload's identity. It retries after 5xx, throttling and
broken connections, with backoff and jitter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

from bundler.errors import (
    BundlerError,
    ConfigurationError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
)
from bundler.store.objects import Buffer, Listed, StoredObject, shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 3  # of one file; several files are transferred concurrently
_RETRIES = 10
_RETRY_SECONDS = 60.0
# Doubled with each attempt, up to the longest.
_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=100), timedelta(seconds=15)
# The vendors' names for a missing bucket, in the body of the answer.
_NO_BUCKET = re.compile(
    r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not exist"
)
_STATUS = re.compile(r"status: (\d{3})|status code: (\d{3})")
# The vendors' errors for a request whose signature or token does not match their time.
_SKEWED = re.compile(r"RequestTimeTooSkewed|RequestExpired|reasonable timeframe")
# A bucket in another account answers 403; invalid keys answer 400 or 403 with one of these.
_REFUSED = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AuthenticationFailed"
    r"|AuthorizationFailure|AccessDenied|invalid_grant|credential",
    re.IGNORECASE,
)


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
        if self.url.startswith("s3:") and unsaid and not _plain_http():
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
            return obstore.get_range(self._store, name, start=start, length=length)

    def exists(self, name: str) -> bool:
        try:
            with self._errors(f"find {name}"):
                obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str, data: bytes) -> bool:
        return self._conditional(name, data, "create")

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        etag, _, version = tag.partition("\n")
        mode = {"e_tag": etag} if not version else {"e_tag": etag, "version": version}
        return self._conditional(name, data, mode)

    def _conditional(self, name: str, data: bytes, mode: Any) -> bool:
        try:
            with self._errors(f"write {name}"):
                obstore.put(self._store, name, data, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (FileNotFoundError, NotFoundError):
            return False  # what was to be replaced has been removed
        return True

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
        except BundlerError:
            # The library wraps the stream's exception in its own error type.
            if failed:
                raise failed[0] from None
            raise

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
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise _no_bucket(self.url) from None
            raise
        except (BaseError, OSError) as error:
            raise _classified(error, self.url, action) from None


def _tag(meta: Any) -> str:
    version = meta.get("version")
    # Google compares generations; the others compare ETags.
    return f"{meta.get('e_tag') or ''}\n{version}" if version else str(meta.get("e_tag") or "")


def _classified(error: Exception, url: str, action: str) -> BundlerError:
    """Classifies an error of the library; its text is read, never shown."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found.group(1) or found.group(2)) if found else 0
    kind = type(error).__name__
    if _NO_BUCKET.search(text):
        return _no_bucket(url)
    refused = kind in ("PermissionDeniedError", "UnauthenticatedError") or isinstance(
        error, PermissionError
    )
    if refused or status in (401, 403) or (status in (0, 400) and _REFUSED.search(text)):
        if _SKEWED.search(text):
            return CredentialsRefused(
                f"{url} refused to {action}: this machine's clock is wrong.",
                hint="Set the clock: the time of the request is too far from the store's.",
            )
        return CredentialsRefused(
            f"{url} refused to {action}.",
            hint="Check the credentials and their permissions on the bucket.",
        )
    if status == HTTPStatus.NOT_IMPLEMENTED or kind == "NotSupportedError":
        return ConfigurationError(
            f"{url} does not support what is needed to {action}.",
            hint="Use a store that supports conditional writes.",
        )
    again = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    if status and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in again:
        return ToolFailed(
            f"{url} answered {status} when asked to {action}.",
            hint="Check the URL and the variables that configure the store.",
        )
    answer = f"answered {status}" if status else "did not answer"
    return Unavailable(f"{url} {answer} when asked to {action}.", hint="Try again later.")


def _no_bucket(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{url}: the bucket does not exist.", hint="Create it, or correct the store's URL."
    )


def _open(url: str, where: str, patience: float, config: Any = None) -> ObjectStore:
    try:
        store: ObjectStore = obstore.store.from_url(
            url,
            config=config,
            client_options={"timeout": timedelta(seconds=120), "allow_http": _plain_http()},
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
        raise ConfigurationError(
            f"{where} cannot be opened.",
            hint="Check the URL and the variables that configure the store (AWS_…, GOOGLE_…, "
            "AZURE_…).",
        ) from None
    return store


def _plain_http() -> bool:
    """Whether the user's own endpoint uses no TLS, as a test server on loopback."""
    own = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    if any(os.environ.get(name, "").startswith("http://") for name in own):
        return True
    account = os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY", "")
    return os.environ.get("GOOGLE_BASE_URL", "").startswith("http://") or bool(
        re.search(r'"gcs_base_url"\s*:\s*"http://', account)
    )
