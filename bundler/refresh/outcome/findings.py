"""What made an attempt fail, and how that is worded for the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bundler.errors import (
    BadData,
    BundlerError,
    ConfigurationError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
)
from bundler.refresh.model import Component
from bundler.refresh.outcome.exchanges import Exchange, Link
from bundler.refresh.secrets import Secrets
from bundler.system.secret_names import has_a_secret_name

# Whether a retry may help.
Retry = Literal["no", "once", "yes"]

PROXY_HINT = "Check the proxy and its credentials (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."
_HINTS: dict[type[BundlerError], str] = {
    ConfigurationError: "Check the URL and the settings of the component.",
    Unavailable: "Check that {host} is up and reachable from here, then try again.",
    BadData: "Check what the API returns and what the component expects.",
}
_PYDANTIC_LINK = re.compile(r"(?m)^\s*For further information visit \S+$")
_DBT_SAID = "Errors parsed from dbt logs:"
DBT_ENDED = "Encountered an error:"
MAX_QUOTED = 300
# Variables that say where a system is, not who asks it.
_PLACES = re.compile(r"(?i)URL|URI|HOST|ENDPOINT|SERVER|DOMAIN|BASE|REGION|PORT|PATH|DIR|FILE|SITE")


class Cause(msgspec.Struct, frozen=True):
    """A failure before it is worded.

    kind: its class. says: what happened. wait: seconds that the server asked for before another
    attempt. hint: empty for the usual one of its kind. is_known: whether the component's traceback
    would add nothing.
    """

    kind: type[BundlerError]
    says: str
    retry: Retry = "no"
    wait: float | None = None
    hint: str = ""
    is_known: bool = False

    def at(self, host: str, status: int | None = None) -> Cause:
        """The cause with the places for these filled in."""
        says = self.says.format(host=host, status=status)
        return msgspec.structs.replace(self, says=says, hint=self.hint.format(host=host))


class Failure(msgspec.Struct, frozen=True):
    """A failed attempt.

    wait: as in `Cause`. late: whether the deadline has ended it. seen: whether the reason was
    seen on the wire.
    """

    error: BundlerError
    retry: Retry = "no"
    wait: float | None = None
    late: bool = False
    seen: bool = False


def of_status(status: int, host: str, retry_after: float | None = None) -> Cause:
    """The meaning of an answer's status that is an error."""
    says = f"{host} answered {status}"
    if status in (401, 403):
        return Cause(CredentialsRefused, says)
    if status == 429:  # noqa: PLR2004
        asks = f" and asked to wait {retry_after:g} s" if retry_after else ""
        hint = "Try again later, or allow fewer concurrent requests: --jobs, kind-jobs."
        return Cause(Unavailable, f"{says}{asks}", "yes", retry_after, hint)
    if status == 407:  # noqa: PLR2004
        says = f"the proxy for {host} answered 407: it requires valid credentials"
        return Cause(Unavailable, says, hint=PROXY_HINT)
    if status == 408 or status >= 500:  # noqa: PLR2004
        hint = f"The server has a problem. Try again later, or contact the operator of {host}."
        return Cause(Unavailable, says, "yes", retry_after, hint)
    return Cause(ConfigurationError, says)


class Wording(msgspec.Struct, frozen=True):
    """Words the failures of a component. environment: variables that its code has read."""

    component: Component
    secrets: Secrets
    environment: Sequence[str] = ()

    def failure(self, cause: Cause, exchange: Exchange | None = None) -> Failure:
        """exchange: the one that the cause is about, or that was the last."""
        about = exchange if cause.kind is not ToolFailed else None
        problem = f"{cause.says}{f' ({request(about)})' if about else ''}."
        return self._failure(cause, exchange, problem, self._hint(cause, exchange))

    def partial(self, cause: Cause, exchange: Exchange, though: str = "") -> Failure:
        """A failed exchange after which the component continued. though: what contradicts it."""
        by_word = exchange.body and (exchange.status == 200 or exchange.body == "more")  # noqa: PLR2004
        code = exchange.body if by_word else exchange.status or "error"
        pattern = f"{request(exchange)} {code}"
        continued = "but the component continued" + ("" if by_word else " without that part")
        return self._failure(
            cause,
            exchange,
            f"{cause.says} ({request(exchange)}){though}, {continued}.",
            f"{self._hint(cause, exchange)} If that response is expected, accept it: "
            f'allow-http = ["{pattern}"].',
        )

    def _failure(self, cause: Cause, exchange: Exchange | None, problem: str, hint: str) -> Failure:
        redact = self.secrets.redact
        error = cause.kind.of_key(self.component.key, redact(problem), hint=redact(hint))
        # No retry is added if the library inside has already retried.
        retried = exchange is not None and exchange.tries > 1
        # What was left out is only named in the component's output.
        seen = cause.is_known or (exchange is not None and exchange.body not in ("", "skipped"))
        return Failure(error, "no" if retried else cause.retry, cause.wait, seen=seen)

    def _hint(self, cause: Cause, exchange: Exchange | None) -> str:
        if cause.kind is CredentialsRefused:
            read = (*self.component.environment_variables, *self.environment)
            names = ", ".join(self._credentials(dict.fromkeys(read)))
            return f"Check the credentials{f' ({names})' if names else ''}, then try again."
        host = urlsplit(exchange.url).netloc if exchange else "the external system"
        usual = _HINTS.get(cause.kind, "See the output of the component above.")
        return cause.hint or usual.format(host=host)

    def _credentials(self, names: Iterable[str]) -> list[str]:
        """Those of these variables that contain credentials; else those that are not only
        addresses."""
        parts = {part.variable for part in self.secrets.parts}
        known = {*self.secrets.values, *parts} - self.secrets.settings
        found = [name for name in names if name in known or has_a_secret_name(name)]
        return found or [name for name in names if not _PLACES.search(name)]


def quoted(link: Link, secrets: Secrets) -> str:
    """An exception for the user. A client library's text may contain headers, so it is removed."""
    name = link.type.rpartition(".")[2]
    text = "" if link.is_of_a_client else _one_line(secrets.redact(link.text))
    where = link.where.rpartition("/")[2]
    return f"{name}{': ' if text else ''}{text}" + (f" ({where})" if where else "")


def _one_line(text: str) -> str:
    """The text on one line; of dagster-dbt's long text, only dbt's own."""
    said = text.partition(_DBT_SAID)[2].strip().removeprefix(DBT_ENDED) or text
    line = " ".join(_PYDANTIC_LINK.sub("", said).split())
    return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}…"


def request(exchange: Exchange) -> str:
    """The method and the path."""
    return f"{exchange.method} {urlsplit(exchange.url).path}"
