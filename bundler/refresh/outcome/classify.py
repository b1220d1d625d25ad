"""Why an attempt failed: from what happened on the wire, and from the chain of exceptions.

The wire goes first: the libraries of vendors turn refused connections into other errors, drop
causes, and swallow failed sub-requests. An attempt with a failed exchange has failed, whatever the
component returned, unless the same exchange succeeded later or is one of those that may fail.

`docs/explanation/refresh.md` has the table of what can happen, with the exit code and whether it is
retried; `FAULTS` and `_BODIES` are the parts of it that have their own message.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from bundler.errors import (
    BadData,
    BundlerError,
    ConfigurationError,
    CredentialsRefused,
    InputOutputError,
    ToolFailed,
    Unavailable,
)
from bundler.refresh.model import Component
from bundler.refresh.outcome.clones import clone_without_project, is_cloned, of_clone, of_package
from bundler.refresh.outcome.exchanges import Exchange, Link, Report
from bundler.refresh.outcome.faults import CERTIFICATE, FAULTS, PROXY_NAMES, PROXY_STATUS, fault_of
from bundler.refresh.outcome.findings import (
    DBT_ENDED,
    MAX_QUOTED,
    Cause,
    Failure,
    Retry,
    Wording,
    of_status,
    quoted,
)
from bundler.refresh.secrets import Secrets
from bundler.system.process import last_word

_AGAIN = "Try again. If it happens again, contact the operator of {host}."
_BUSY = (
    "It was not waiting for an answer that could be observed: it may be computing, or waiting for "
    "another program that it started. If it is only slow, increase the key's timeout."
)
_PAGE = "It may be a login page or a maintenance notice. Check the URL and the credentials."
_NO_ANSWER = (
    "Check the URL of the component: http or https, the host, a trailing slash. A redirect may "
    "also lead to a login page."
)
# Problems of a body.
_BODIES = {
    "html": Cause(Unavailable, "the response from {host} is HTML", "once", hint=_PAGE),
    "cut": FAULTS["cut"],
    "empty": Cause(Unavailable, "{host} answered {status} without a body", "once", hint=_AGAIN),
    "partial": Cause(
        Unavailable, "{host} sent only part of the data, with status 206", "once", hint=_AGAIN
    ),
    "accepted": Cause(
        Unavailable,
        "{host} answered 202, which means that the data is not ready",
        "once",
        hint=_AGAIN,
    ),
    "skipped": Cause(
        BadData, "the component left out what it could not use of the response from {host}", "once"
    ),
    "unanswered": Cause(
        Unavailable,
        "{host} had not answered when the component ended",
        "yes",
        hint="Check that {host} is up and reachable from here, then try again. Make the component "
        "wait for what it has requested.",
    ),
    "not-modified": Cause(
        Unavailable, "{host} answered 304 instead of sending the data", "once", hint=_AGAIN
    ),
    "redirect": Cause(
        Unavailable,
        "{host} answered {status}, and the redirect did not lead to a response",
        hint=_NO_ANSWER,
    ),
    "not-utf-8": Cause(
        BadData,
        "the response from {host} is not in the encoding that it declares, or in which the "
        "component reads it",
    ),
    "too-deep": Cause(BadData, "the JSON from {host} is nested too deeply"),
    "bomb": Cause(BadData, "the response from {host} decompresses to over 200 times its size"),
    "graphql-errors": Cause(BadData, "{host} answered with GraphQL errors"),
    "more": Cause(BadData, "{host} reported further pages, which were not requested"),
    "repeated": Cause(BadData, "{host} sent the same page of a list twice", "once"),
    "nothing": Cause(BadData, "{host} answered with an empty object", "once"),
}
# Of `bundler.worker.command_worker`.
_NOT_STARTED = "ProgramNotStartedError"
# Of `bundler.worker.patches`.
_NOT_WRITTEN = "ManifestNotWrittenError"
# Of `bundler.worker.endings`.
_WHERE_PROGRAMS_ARE = "Install it next to the project's interpreter, or put it on PATH."
_NO_SUCH_FILE = "No such file or directory"
_WHAT_PROGRAMS_ARE = (
    "Make the file executable. A script needs a first line such as #!/bin/sh, with plain line "
    "ends (LF)."
)
# The names of JSON decoders' exceptions.
_NOT_JSON = frozenset({"JSONDecodeError", "DecodeError", "ContentTypeError", "ExpatError"})
_SHAPE = frozenset(
    {
        *("KeyError", "TypeError", "IndexError", "AttributeError", "ValidationError", "ValueError"),
        "CheckError",  # Dagster's own check of a value
    }
)
# What client libraries raise for a URL without a scheme or a host, before any request.
_BAD_URL = frozenset(
    {
        *("InvalidSchema", "InvalidURL", "InvalidUrlClientError", "LocationParseError"),
        *("LocationValueError", "MissingSchema", "NonHttpUrlClientError", "UnsupportedProtocol"),
    }
)
_NO_DBT_PROJECT = frozenset(
    {
        "DagsterDbtProjectNotFoundError",
        "DagsterDbtProjectYmlFileNotFoundError",
        "DagsterDbtProfilesDirectoryNotFoundError",
    }
)
_ERROR_STATUS = re.compile(r"\b([45]\d\d)\b")
_UNSET_FOR_DBT = re.compile(r"Env var required but not provided: '(\w+)'")
# Of `dagster_dbt.cloud_v2`, which raises a plain exception and one of Dagster's own.
_CLOUD_RUN_FAILED = re.compile(r"dbt Cloud run '(\d+)' failed!")
_CLOUD_RUN_LATE = re.compile(r"Run (\d+) did not complete within ([\d.]+) seconds")
_CLOUD_RUN_HINT = (
    "Look at that run in dbt Cloud, where it may be queued or still running. If it is only slow, "
    "increase DAGSTER_DBT_CLOUD_POLL_TIMEOUT (seconds; dagster-dbt waits for 60 by default), and "
    "the key's timeout."
)
# Where `os.environ` raises.
_FROM_OS = re.compile(r"\bos(\.py|>):\d+ in")
_POOL = re.compile(r"HTTPS?ConnectionPool\(host='([\w.-]+)'")
# https://cloud.google.com/looker/docs/api-auth
_LOOKER_LOGIN = re.compile(r"/api/\d\.\d/login")
_LOCAL_ERRNO = frozenset(
    {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EMFILE}
)
_SYSEXITS: dict[int, tuple[type[BundlerError], Retry]] = {
    65: (BadData, "no"),
    69: (Unavailable, "yes"),
    74: (InputOutputError, "no"),
    75: (Unavailable, "yes"),  # "temporary failure; try again"
    77: (CredentialsRefused, "no"),
    78: (ConfigurationError, "no"),
}
# https://curl.se/libcurl/c/libcurl-errors.html
_CURL: dict[int, tuple[type[BundlerError], Retry]] = {
    3: (ConfigurationError, "no"),
    **dict.fromkeys((5, 6, 7, 22, 28, 52, 56), (Unavailable, "yes")),
    18: (Unavailable, "once"),
    **dict.fromkeys((35, 60), (Unavailable, "no")),
    67: (CredentialsRefused, "no"),
}


def failure_of(
    component: Component,
    report: Report,
    *,
    secrets: Secrets,
    deadline: float | None = None,
    signal: int | None = None,
) -> Failure | None:
    """Why this attempt failed; None if it succeeded.

    deadline: in seconds, if the attempt was stopped for exceeding it. signal: the one that ended
    it, if it was not ours.
    """
    wording = Wording(component, secrets, report.environment)
    if deadline is not None and not (report.blind or report.uncopied):
        late = wording.failure(_late(report, deadline), report.waiting)
        return msgspec.structs.replace(late, late=True)
    cause = _unseen(report) or _not_started(report) or _without_url(component, report, secrets)
    if cause is not None:
        return wording.failure(cause)
    if report.raised:
        exchange = _behind(report)
        if exchange is not None:
            return wording.failure(of_exchange(exchange), exchange)
        return wording.failure(_of_chain(report, secrets), report.last)
    if report.unfinished and signal is None:
        says = f"a process that it left running {report.unfinished}"
        hint = "Make it wait for every process that it starts."
        return wording.failure(Cause(BadData, says, hint=hint))
    if not report.returned:
        return wording.failure(_vanished(signal))
    seen = (*report.unfollowed, *report.failed)
    if not seen:
        return None
    exchange = next((one for one in reversed(seen) if not one.is_abandoned), seen[-1])
    return wording.partial(of_exchange(exchange), exchange)


def _unseen(report: Report) -> Cause | None:
    """What kept us from watching the attempt, or the component from copying a directory."""
    if report.blind:
        says = f"its requests cannot be observed in {report.blind}"
        hint = "Install an earlier version of that library, or a newer state-bundler."
        return Cause(ToolFailed, says, hint=hint)
    if report.uncopied:
        hint = "Run `git status` in that directory: a FIFO, a lock or a network disk can block git."
        return Cause(ToolFailed, report.uncopied, hint=hint)
    return None


def _not_started(report: Report) -> Cause | None:
    program = next((it.text for it in report.raised if it.type.endswith(_NOT_STARTED)), None)
    if program is None:
        return None
    hint = _WHERE_PROGRAMS_ARE if program.endswith(_NO_SUCH_FILE) else _WHAT_PROGRAMS_ARE
    return Cause(ToolFailed, f"the program cannot be started: {program}", hint=hint)


def of_command(
    component: Component, exit_code: int, output: str, *, secrets: Secrets
) -> Failure | None:
    """Why a command failed, by its exit code and output; None if it succeeded.

    The codes of ``sysexits.h`` and of curl are taken as such; otherwise a network fault in the
    output decides, such as a traceback's last line.
    """
    if exit_code == 0:
        return None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wording = Wording(component, secrets)
    package = of_package(output)
    if package is not None:
        return wording.failure(package)
    last = secrets.redact(_last_word(output))[:MAX_QUOTED]
    name = re.match(r"([\w.]+)(?::|$)", lines[-1]) if lines else None
    type_name = name[1] if name else ""
    names = frozenset({type_name.rpartition(".")[2]} - {""})
    fault = fault_of((Link(type=type_name, text="\n".join(lines[-5:]), names=names),))
    program = component.location.rpartition("/")[2]
    code = _CURL.get(exit_code) if program == "curl" else None
    refused = re.search(r"returned error: (\d{3})", output) if program == "curl" else None
    if refused:
        by_status = of_status(int(refused[1]), "the server")
        code = (by_status.kind, by_status.retry)
    kind, retry = code or _SYSEXITS.get(exit_code, (ToolFailed, "no"))
    if fault and kind is ToolFailed:
        kind, retry = Unavailable, FAULTS[fault].retry
    says = f"{program} failed with exit code {exit_code}: {last.rstrip('.')}"
    hint = "Run the command yourself to find out why." if kind is ToolFailed and not lines else ""
    return wording.failure(Cause(kind, says, retry, hint=hint))


def _last_word(output: str) -> str:
    """A program's last line, or the whole error that dbt ends with."""
    _, ended, story = output.rpartition(DBT_ENDED)
    if ended:
        return " ".join(story.split())
    return last_word(output) or "it printed nothing"


def _behind(report: Report) -> Exchange | None:
    """The failed exchange that an exception came from.

    If the component ignored an earlier outage or refusal and a later request was only wrong, the
    earlier one is the reason: tableauserverclient signs in with an old API if it cannot ask for the
    newest.
    """
    exchange = _raised_from(report)
    if exchange is None or of_exchange(exchange).kind not in (ConfigurationError, BadData):
        return exchange
    earlier = [one for one in report.failed if one.newest < exchange.id and not one.is_abandoned]
    reasons = (Unavailable, CredentialsRefused)
    return next((one for one in earlier if of_exchange(one).kind in reasons), exchange)


def _raised_from(report: Report) -> Exchange | None:
    """The failed exchange that was raised from: an abandoned one only if the component raised a
    timeout for it; else the last failed one.

    A request that may fail is the reason only if the exception shows it, by its mark or its status.
    """
    marks = {link.wire for link in report.raised if link.wire}
    statuses = {link.status for link in report.raised if link.has_status}
    failed = [one for one in reversed(report.failed) if not one.is_abandoned]
    seen = [*failed, *reversed(report.expected)]
    abandoned = [one for one in reversed(report.failed) if one.is_abandoned]
    given_up = abandoned if _has_given_up(report.raised) else []
    candidates = (
        *(one for one in seen if one.id in marks),
        *(one for one in seen if one.status in statuses),
        *(one for one in given_up if one.id in marks),
        *failed,
        *given_up,
    )
    return next(iter(candidates), None)


def _has_given_up(chain: Sequence[Link]) -> bool:
    """Whether the component raised because something took too long."""
    return chain[0].is_cancelled or any("TimeoutError" in link.names for link in chain)


def _without_cancellations(chain: Sequence[Link]) -> Sequence[Link]:
    """A group of tasks cancels its own body, too, if one of them fails."""
    if _has_given_up(chain):
        return chain
    return [link for link in chain if not link.is_cancelled]


def of_exchange(exchange: Exchange) -> Cause:
    """The meaning of a failed exchange."""
    host = urlsplit(exchange.url).netloc
    if exchange.body == "not-json":
        return _no_data(exchange, host)
    if exchange.body == "error-object":
        return _of_error_document(exchange, host)
    if exchange.body:
        return _BODIES[exchange.body].at(host, exchange.status)
    if exchange.chain:
        cloned = of_clone(exchange, host)
        if cloned is not None:
            return cloned
        if any("ContentTypeError" in link.names for link in exchange.chain):
            return _no_data(exchange, host)
        carried = next((link for link in exchange.chain if link.has_status), None)
        return (
            _of_fault(exchange.chain, host)
            or (of_status(carried.status or 0, host, carried.retry_after) if carried else None)
            or Cause(Unavailable, f"the request to {host} failed", "once")
        )
    if exchange.status == 404 and _LOOKER_LOGIN.fullmatch(urlsplit(exchange.url).path):  # noqa: PLR2004
        says = f"{host} answered 404, as Looker does to credentials that it does not know"
        return Cause(CredentialsRefused, says)
    return of_status(exchange.status or 0, host, exchange.retry_after)


def _of_error_document(exchange: Exchange, host: str) -> Cause:
    says = f"{host} answered {exchange.status} with a document that only reports an error"
    if exchange.code is None:
        return Cause(BadData, says, "once")
    cause = of_status(exchange.code, host)
    return msgspec.structs.replace(cause, says=f"{says} ({exchange.code})")


def _of_fault(chain: Sequence[Link], host: str) -> Cause | None:
    """The network fault in a chain of exceptions; None if there is none."""
    fault = fault_of(chain)
    if fault is None:
        return None
    cause = FAULTS[fault].at(host)
    if fault == "tls":
        text = " ".join(link.text for link in chain)
        detail = next((f": {said}" for sign, said in CERTIFICATE if sign in text), "")
        return msgspec.structs.replace(cause, says=cause.says + detail)
    if fault == "proxy" and (status := _proxy_status(chain)):
        says = f"{cause.says} (it answered {status})"
        retry: Retry = "no" if status == 407 else "yes"  # noqa: PLR2004
        return msgspec.structs.replace(cause, says=says, retry=retry)
    return cause


def _proxy_status(chain: Sequence[Link]) -> int | None:
    for link in chain:
        found = PROXY_STATUS.search(link.text)
        if not found and not PROXY_NAMES.isdisjoint(link.names):
            found = _ERROR_STATUS.search(link.text)
        if found:
            return int(found[1])
    return next((link.status for link in chain if link.status), None)


def _without_url(component: Component, report: Report, secrets: Secrets) -> Cause | None:
    """The problem if a client rejects the URL, or a variable that is not set is part of it."""
    unset = ", ".join(component.unset_variables)
    hint = f"Set {unset} in the environment or in .env." if unset else ""
    for exchange in report.failed if unset else ():
        host = urlsplit(exchange.url).hostname or ""
        if not host or "none" in re.split(r"[.-]", host):
            says = f"{unset} is not set, but is part of the URL: {host or 'it has no host'}"
            return Cause(ConfigurationError, says, hint=hint)
    refused = next((link for link in report.raised if _refuses_url(link)), None)
    if refused is None:
        return None
    because = f"{unset} is not set, so " if unset else ""
    says = f"{because}the URL is invalid: {quoted(refused, secrets)}"
    return Cause(ConfigurationError, says, hint=hint)


def _refuses_url(link: Link) -> bool:
    return not _BAD_URL.isdisjoint(link.names) or link.text.startswith("unknown url type")


def _of_chain(report: Report, secrets: Secrets) -> Cause:
    """The meaning of an exception if every exchange succeeded, or none was seen."""
    chain = _without_cancellations(report.raised)
    last = report.last
    host = urlsplit(last.url).netloc if last else _host_in(chain)
    package = next(filter(None, (of_package(link.text) for link in chain)), None)
    if package is not None:
        return package
    status = next((link.status for link in chain if link.has_status), None)
    if status and status >= 400:  # noqa: PLR2004
        return of_status(status, host)
    network = _of_fault(chain, host)
    if network:
        return network
    names = {name for link in chain for name in link.names}
    if not _NO_DBT_PROJECT.isdisjoint(names):
        without = clone_without_project(last) if last else None
        return Cause(ConfigurationError, without or quoted(chain[0], secrets))
    if last and any("RecursionError" in link.names and "json" in link.where for link in chain):
        return _BODIES["too-deep"].at(host)
    if any(link.errno in _LOCAL_ERRNO for link in chain):
        return Cause(InputOutputError, f"it could not write: {quoted(chain[0], secrets)}")
    if cause := _missing(chain):
        return cause
    if last and (report.not_json or not _NOT_JSON.isdisjoint(names)):
        return _no_data(last, host)
    if last and not _SHAPE.isdisjoint(names):
        says = f"the response from {host} has an unexpected structure: {quoted(chain[0], secrets)}"
        return Cause(BadData, says)
    says = f"the component failed: {quoted(chain[0], secrets)}"
    return _of_cloud_run(chain, host) or Cause(ToolFailed, says)


def _of_cloud_run(chain: Sequence[Link], host: str) -> Cause | None:
    """The result of a run in dbt Cloud, whose requests all succeeded."""
    for link in chain:
        if found := _CLOUD_RUN_FAILED.match(link.text):
            says = f"the run {found[1]} in dbt Cloud failed or was cancelled ({host})"
            hint = "Look at the log of that run in dbt Cloud."
            return Cause(ToolFailed, says, hint=hint, is_known=True)
        if found := _CLOUD_RUN_LATE.match(link.text):
            says = f"{host} did not finish the run {found[1]} within {found[2]} s"
            return Cause(Unavailable, says, hint=_CLOUD_RUN_HINT)
    return None


def _host_in(chain: Sequence[Link]) -> str:
    """The host in a client library's text, which may quote another process."""
    found = next(filter(None, (_POOL.search(link.text) for link in chain)), None)
    return found[1] if found else "the external system"


def _no_data(exchange: Exchange, host: str) -> Cause:
    kind = exchange.content_type
    what = (
        "HTML" if "html" in kind else f"incomplete or invalid {'XML' if 'xml' in kind else 'JSON'}"
    )
    hint = _PAGE if "html" in kind else _AGAIN.format(host=host)
    return Cause(Unavailable, f"the response from {host} is {what}", "once", hint=hint)


def _missing(chain: Sequence[Link]) -> Cause | None:
    """A variable or a manifest that is not here."""
    unset = (
        link.text.strip("'\"")
        for link in chain
        if link.type == "builtins.KeyError" and _FROM_OS.search(link.where)
    )
    of_dbt = (found[1] for link in chain if (found := _UNSET_FOR_DBT.search(link.text)))
    if variable := next(iter((*unset, *of_dbt)), None):
        says = f"the environment variable {variable} is not set"
        return Cause(ConfigurationError, says, hint=f"Export {variable}, or set it in .env.")
    manifests = (link.text for link in chain if link.type.endswith(_NOT_WRITTEN))
    if manifest := next(manifests, None):
        says = f"dbt succeeded, but did not write {manifest}"
        hint = "Check write_json: DBT_WRITE_JSON, `flags` in dbt_project.yml, and --no-write-json."
        return Cause(ConfigurationError, says, hint=hint)
    return None


def _late(report: Report, deadline: float) -> Cause:
    waiting = report.waiting
    says = f"it did not finish within {deadline:g} s"
    refused = next((one for one in report.failed if waiting and one.id == waiting.id), None)
    if refused is not None:  # the library was about to retry
        cause = of_exchange(refused)
        return Cause(cause.kind, f"{cause.says}, and {says}")
    if waiting is not None and not is_cloned(waiting):
        says += f"; it was waiting for {urlsplit(waiting.url).netloc}"
    return Cause(Unavailable, says, hint="" if waiting else _BUSY)


def _vanished(signal: int | None) -> Cause:
    if signal is not None:
        detail = ", probably because memory ran out" if signal == 9 else ""  # noqa: PLR2004
        return Cause(ToolFailed, f"its process was killed by signal {signal}{detail}")
    return Cause(ToolFailed, "its process exited without reporting a result")
