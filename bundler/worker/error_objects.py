"""Detects JSON documents that only report an error, with a successful status.

Runs inside the component's process, with the standard library only.

APIs report errors in a dozen shapes with one thing in common: the document is an *envelope*, in
which only the error, and what is said about it, has a value. A document with data next to its
``error`` or ``errors`` is data, as is a list of rows with such a column.
"""

from __future__ import annotations

import re
from typing import Any

# What an envelope contains besides the error.
_ABOUT = re.compile(
    r"errors?|(?:inner|is)?error(?:code|messages?|msg|type|id|description|uri|info|details|summary|link"
    r"|causes)?|errno|fault|exception|odataerror|(?:developer|user)?messages?|msg|details?|reason"
    r"|description|title|type|code|(?:http)?(?:status|code)(?:code|text|message)?|success|ok|succeeded"
    r"|failed|timestamp|time|date|path|instance|method|url|host|server|service|domain|target|version"
    r"|apiversion|jsonrpc|help|helplink|docs|documentation(?:url)?|links?|moreinfo|info|x?requestid"
    r"|correlationid|traceid|trace|traceback|stack|stacktrace|cause|warnings?|retryafter|retryable"
    r"|meta|metadata"
)
_BODIES = ("error", "errors", "fault", "exception", "odataerror")
_TEXTS = (
    *("message", "msg", "errormessage", "errormsg", "detail", "details", "reason"),
    *("errordescription", "error", "statustext", "developermessage"),
)
_STATUSES = (
    "status",
    "statuscode",
    "code",
    "httpstatus",
    "httpstatuscode",
    "httpcode",
    "errorcode",
)
_MOST_LEVELS = 4
_FAILED = frozenset({"error", "errors", "fail", "failed", "failure", "nok", "ko", "exception"})
# Texts that are errors by themselves: {"message": "Service temporarily unavailable"}.
_WENT_WRONG = re.compile(
    r"(?i)\b(?:errors?|unavailable|maintenance|forbidden|unauthori[sz]ed|unauthenticated"
    r"|not authenticated|denied|invalid|expired|timed? ?out|time-?out|too many requests|throttled"
    r"|(?:rate|request|quota)[ _-]?limit\w*|limit[ _]exceeded|overload\w*|bad gateway|exception"
    r"|failed|failure|not found|try again)\b"
)
_CODE_WENT_WRONG = re.compile(
    r"(?i)error|unavail|denied|fail|invalid|exception|time_?out|throttl|unauth|forbidden|exhausted"
    r"|limit|expired|not_?found|internal"
)
_REFUSED = re.compile(
    r"(?i)unauthori[sz]ed|unauthenticated|invalid_auth|not_authed|permission_denied|accessdenied"
    r"|access_denied|invalid_token|invalid_grant|invalid_client|expired_?token"
)


def error_in(value: Any) -> tuple[str, int | None] | None:
    """The word for the error, and the status that it names; None for data."""
    if isinstance(value, list):
        if has_graphql_errors(value):
            return "graphql-errors", None
        rows = [_normal(item) for item in value if isinstance(item, dict)]
        rows = rows if len(rows) == len(value) else []
        # Salesforce answers with a list of errors.
        wrong = bool(rows) and all(_is_coded(row) and not _holds_data(row) for row in rows)
        return ("error-object", _status(rows[0])) if wrong else None
    if not isinstance(value, dict):
        return None
    if has_graphql_errors(value):
        return "graphql-errors", None
    members = _normal(value)
    if not _is_error(members) or _holds_data(members):
        return None
    return "error-object", _status(members)


def has_graphql_errors(value: Any) -> bool:
    """Whether this is an answer with errors, not only warnings (which Tableau sends), or a batch of
    answers with one."""
    if isinstance(value, list):
        answers = [item for item in value if isinstance(item, dict) and "data" in item]
        return len(answers) == len(value) and any(map(has_graphql_errors, answers))
    errors = value.get("errors") if isinstance(value, dict) and "data" in value else None
    return isinstance(errors, list) and any(
        isinstance(error, dict) and "message" in error and not _is_warning(error)
        for error in errors
    )


def _is_warning(error: dict[str, Any]) -> bool:
    extensions = error.get("extensions")
    return isinstance(extensions, dict) and extensions.get("severity") == "WARNING"


def _normal(value: dict[str, Any]) -> dict[str, Any]:
    """Its members, with names without underscores, dots and capitals."""
    return {re.sub(r"[\W_]", "", name).lower(): member for name, member in value.items()}


def _holds_data(members: dict[str, Any]) -> bool:
    return any(
        not _ABOUT.fullmatch(name) and not (name == "id" and "jsonrpc" in members)
        for name, member in members.items()
        if member not in (None, "", [], {}, False, 0)
    )


def _is_error(members: dict[str, Any]) -> bool:
    return (
        any(_is_error_body(members.get(name)) for name in _BODIES)
        or _is_coded(members)
        or _says_failed(members)
        or _is_alone(members)
    )


def _is_error_body(body: Any) -> bool:
    if isinstance(body, bool):
        return body
    if isinstance(body, int):
        return _as_status(body) is not None
    return isinstance(body, (str, list, dict)) and bool(body)


def _is_coded(members: dict[str, Any]) -> bool:
    """Whether there is a code that means an error, and a text: ``{"code": 503, "message":
    "…"}``."""
    if not any(
        isinstance(members.get(name), (str, list, dict)) and members[name] for name in _TEXTS
    ):
        return False
    if members.get("errorcode") not in (None, "", 0, "0"):
        return True
    if any(_as_status(members.get(name)) is not None for name in _STATUSES):
        return True
    code, kind = members.get("code"), members.get("type")
    return bool(
        (isinstance(code, str) and _CODE_WENT_WRONG.search(code))
        or (isinstance(kind, str) and re.search(r"(?i)error|exception", kind))
    )


def _says_failed(members: dict[str, Any]) -> bool:
    status = members.get("status")
    if isinstance(status, str) and status.lower() in _FAILED:
        return True
    if members.get("iserror") is True:
        return True
    if isinstance(status, dict) and not _holds_data(inner := _normal(status)):  # dbt Cloud
        members = {**inner, **members}
    return any(members.get(name) is False for name in ("success", "issuccess", "ok", "succeeded"))


def _is_alone(members: dict[str, Any]) -> bool:
    """Whether there is a text about an error, and nothing next to it."""
    texts = [members.get(name) for name in ("message", "msg", "detail", "errormessage")]
    said = [text for text in texts if isinstance(text, str) and text]
    judged = any(members.get(name) for name in (*_STATUSES, "success", "ok", "succeeded"))
    return (
        not judged
        and bool(said)
        and ("errormessage" in members or any(_WENT_WRONG.search(text) for text in said))
    )


def _status(members: dict[str, Any]) -> int | None:
    """The status that the error names, there or inside; 401 if it names a refusal."""
    refused = False
    for _ in range(_MOST_LEVELS):
        values = [members.get(name) for name in (*_STATUSES, *_BODIES, "type")]
        code = next(filter(None, map(_as_status, values)), None)
        if code is not None:
            return code
        refused |= any(isinstance(value, str) and _REFUSED.search(value) for value in values)
        inner = next(filter(None, map(members.get, (*_BODIES, "status"))), None)
        inner = inner[0] if isinstance(inner, list) else inner
        if not isinstance(inner, dict):
            break
        members = _normal(inner)
    return 401 if refused else None


def _as_status(code: Any) -> int | None:
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:  # noqa: PLR2004
        code = int(code)
    return code if type(code) is int and 400 <= code <= 599 else None  # noqa: PLR2004
