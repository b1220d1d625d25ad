"""URLs and endpoints of buckets that cannot be meant."""

from __future__ import annotations

import pytest

from bundler.errors import ConfigurationError
from bundler.store import open_store


@pytest.mark.parametrize("path", ["a?x", "a#1", "..", "a/../b", "./a", "a//b"])
def test_a_prefix_that_would_become_another_is_refused(path: str) -> None:
    """A URL's parser leaves out queries, fragments and dots: two stores would be one."""
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_store(f"s3://bucket/{path}")


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/", "/a b", "/a+b%20ü", "/.a/b.."])
def test_any_other_prefix_is_accepted(path: str) -> None:
    assert open_store(f"s3://bucket{path}").url == f"s3://bucket{path}".rstrip("/")


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:9000", "http://", "ftp://minio"])
def test_an_endpoint_that_is_no_url_is_refused(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would panic at the first request."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="variable AWS_ENDPOINT_URL is not a URL"):
        open_store("s3://bucket/a")
    open_store("gs://bucket/a")
