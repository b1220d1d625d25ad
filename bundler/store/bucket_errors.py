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

_STATUS = re.compile(r"status: (\d{3})|status code: (\d{3})")
# What the vendors' errors mean, whatever status they have.
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
        r"AuthorizationHeaderMalformed|PermanentRedirect|redirect without LOCATION",
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
    text = str(error)
    found = _STATUS.search(text)
    status = int(found.group(1) or found.group(2)) if found else 0
    kind = type(error).__name__
    if meant := meant_by(error, url, action):
        return meant
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
    again = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
    if status and status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in again:
        return ToolFailed(
            f"{url} answered {status} when asked to {action}.",
            hint="Check the URL and the variables that configure the store.",
        )
    answer = f"answered {status}" if status else "did not answer"
    return Unavailable(f"{url} {answer} when asked to {action}.", hint="Try again later.")


def meant_by(error: Exception, url: str, action: str) -> BundlerError | None:
    """The error that a text of the library names; None if it names none of those known here."""
    text = str(error)
    for pattern, kind, what, hint in _MEANINGS:
        if re.search(pattern, text):
            return kind(f"{url} could not {action}: {what}.", hint=hint)
    return None
