"""What the texts of the library's errors mean: an outage passes, whatever a store is named."""

from __future__ import annotations

import pytest

from bundler.errors import (
    BundlerError,
    ConfigurationError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
)
from bundler.store.bucket_errors import classified

_ADDRESS = "http://127.0.0.1:9/states/NoSuchBucket/my-credential/kms:A/x"
_DOWN = "HTTP error: error sending request"
_KEY = (
    "The authorization header is malformed; a non-empty Access Key (AKID) must be provided in the "
    "credential."
)


def _text(answer: str, address: str = _ADDRESS) -> str:
    """As the library writes it: the address is in it twice, and the path may be once more."""
    return (
        f"Object at location my-credential/x not found: Error performing GET {address} in 1ms"
        f" - {answer}\n\nDebug source:\nGeneric {{ uri: {address} }}"
    )


def _status(status: int, body: str) -> str:
    return _text(f"Server returned non-2xx status code: {status} Status: {body}")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (_text(_DOWN), Unavailable),
        (_status(503, "upstream: bucket does not exist"), Unavailable),
        (_status(500, "<Code>InternalError</Code> ExpiredToken"), Unavailable),
        (_status(400, "<Code>RequestTimeout</Code>"), Unavailable),
        (_status(400, "<Code>ThrottlingException</Code>"), Unavailable),
        (_status(400, "<Code>KMS.ThrottlingException</Code>"), Unavailable),
        (_status(429, "<Code>TooManyRequests</Code>"), Unavailable),
        (_status(501, "<Code>NotImplemented</Code>"), ConfigurationError),
        (_status(400, "<Code>RequestTimeTooSkewed</Code>"), CredentialsRefused),
        (_status(400, "<Code>ExpiredToken</Code>"), CredentialsRefused),
        (_status(400, "<Code>KMS.DisabledException</Code>"), CredentialsRefused),
        (_status(403, "not authorized to perform kms:Decrypt"), CredentialsRefused),
        (_status(400, f"<Code>AuthorizationHeaderMalformed</Code>\n{_KEY}"), CredentialsRefused),
        (_status(400, "<Code>AuthorizationHeaderMalformed</Code> region"), ConfigurationError),
        (_status(400, "<Code>InvalidRequest</Code>"), ToolFailed),
        (_status(404, "<Code>NoSuchBucket</Code>"), ConfigurationError),
        (_text(_DOWN, "http://169.254.169.254/latest/api/token"), CredentialsRefused),
        (_text(_DOWN, "http://metadata.google.internal/x"), CredentialsRefused),
        ("Generic S3 error: Failed to read EKS token file '/x': No such file", CredentialsRefused),
        (_text(_DOWN, "https://metadata.example.com/states/x"), Unavailable),
    ],
)
def test_only_an_answer_says_what_an_error_means(text: str, kind: type[BundlerError]) -> None:
    assert type(classified(OSError(text), "s3://states", "read x")) is kind
