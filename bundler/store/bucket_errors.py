"""What the errors of buckets mean; their texts may contain credentials, and are never shown."""

from __future__ import annotations

import re
from http import HTTPStatus

from bundler.errors import (
    BundlerError,
    ConfigurationError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
)

_STATUS = re.compile(r"status code: (\d{3})")
_ADDRESS = re.compile(r"https?://\S+|(?:location|path) \S+")
_LATER = "Try again later."
_BROKEN = HTTPStatus.INTERNAL_SERVER_ERROR
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
# Errors that pass, although their status can be 400.
_PASSES = re.compile(r"RequestTimeout\b|OperationTimedOut|SlowDown|ServerBusy|Throttling")
# Where the library looks for credentials if it is given none.
_MACHINE = re.compile(
    r"https?://(?:169\.254\.|metadata\.google\.internal)|Failed to read .*token file"
)
# What the vendors' errors mean, whatever status below 500 they have.
_MEANINGS: tuple[tuple[str, type[BundlerError], str, str], ...] = (
    (
        r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not exist",
        ConfigurationError,
        "the bucket does not exist",
        "Create it, or correct the store's URL.",
    ),
    (
        r"RequestTimeTooSkewed|RequestExpired|reasonable timeframe",
        CredentialsRefused,
        "this machine's clock is wrong",
        "Set the clock: the time of the request is too far from the store's.",
    ),
    (
        r"ExpiredToken|TokenRefreshRequired",
        CredentialsRefused,
        "the credentials have expired",
        "Renew them, and run the command again.",
    ),
    (
        r"kms:[A-Z]|<Code>KMS\.",
        CredentialsRefused,
        "the bucket's encryption key may not be used",
        "Check the permissions on the key, and that it is enabled.",
    ),
    (
        r"InvalidObjectState|BlobArchived",
        ToolFailed,
        "the object is archived",
        "Restore it, and exclude the store from the lifecycle rule that archives.",
    ),
    (
        r"AuthorizationHeaderMalformed(?![\s\S]*AKID)|PermanentRedirect|redirect without LOCATION",
        ConfigurationError,
        "the bucket is in another region",
        "Set AWS_REGION to the bucket's region.",
    ),
    (
        r"Encountered object with invalid path",
        ToolFailed,
        "an object of another program has a name with '//', '.' or '..'",
        "Remove it, or use a prefix of the store's own.",
    ),
)
# A bucket in another account answers 403; invalid keys answer 400 or 403 with one of these.
_REFUSED = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|AuthenticationFailed"
    r"|AuthorizationFailure|AccessDenied|invalid_grant|credential",
    re.IGNORECASE,
)


def classified(error: Exception, url: str, action: str) -> BundlerError:
    """Classifies an error of the library; its text is read, never shown."""
    status, text = _answer(error)
    kind = type(error).__name__
    if meant := meant_by(error, url, action):
        return meant
    if _passes(status, text):
        return Unavailable(f"{url} answered {status} when asked to {action}.", hint=_LATER)
    if _MACHINE.search(str(error)):
        return CredentialsRefused(
            f"{url} could not {action}: no credentials were found.",
            hint="Set the variables that configure the store (AWS_…, GOOGLE_…, AZURE_…).",
        )
    refused = kind in ("PermissionDeniedError", "UnauthenticatedError") or isinstance(
        error, PermissionError
    )
    if refused or status in (401, 403) or (status in (0, 400) and _REFUSED.search(text)):
        return CredentialsRefused(
            f"{url} refused to {action}.",
            hint="Check the credentials and their permissions on the bucket.",
        )
    if status == HTTPStatus.NOT_IMPLEMENTED or kind == "NotSupportedError":
        return ConfigurationError(
            f"{url} does not support what is needed to {action}.",
            hint="Use a store that supports conditional writes.",
        )
    if status:
        return ToolFailed(
            f"{url} answered {status} when asked to {action}.",
            hint="Check the URL and the variables that configure the store.",
        )
    return Unavailable(f"{url} did not answer when asked to {action}.", hint=_LATER)


def meant_by(error: Exception, url: str, action: str) -> BundlerError | None:
    """The error that a text of the library names; None if it names none of those known here."""
    status, text = _answer(error)
    for pattern, kind, what, hint in _MEANINGS:
        if re.search(pattern, text) and not (status >= _BROKEN or _PASSES.search(text)):
            return kind(f"{url} could not {action}: {what}.", hint=hint)
    return None


def _answer(error: Exception) -> tuple[int, str]:
    """The status, or 0, and what the text says apart from names and addresses, which may contain
    any word."""
    text = str(error).partition("\nDebug source:")[0]
    found = _STATUS.search(text)
    return (int(found[1]), text[found.end() :]) if found else (0, _ADDRESS.sub("", text))


def _passes(status: int, text: str) -> bool:
    broken = status >= _BROKEN and status != HTTPStatus.NOT_IMPLEMENTED
    return broken or status in _AGAIN or _PASSES.search(text) is not None
