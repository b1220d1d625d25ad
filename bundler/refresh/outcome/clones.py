"""Why a ``git clone`` failed, from what git said.

dagster-dbt fetches a project from a git repository by GitPython, which runs git in English
(``LC_ALL=C``). The texts are those of git 2.30 and later, of the libcurl inside it and of ssh.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from bundler.errors import BundlerError, ConfigurationError, CredentialsRefused, Unavailable
from bundler.refresh.outcome.exchanges import Exchange

Retry = Literal["no", "once", "yes"]
Cause = tuple[type[BundlerError], str, Retry]

_METHOD = "git-clone"
_STATUS = re.compile(r"(?:HTTP |returned error: )(\d{3})\b")
_PACKAGE = re.compile(r"Error (?:checking out spec='.*?' for|cloning) repo (?P<url>\S+)")
_URL = re.compile(r"'[^']*://[^']*'")
# In this order: the last lines of a failed clone contain both general and specific errors.
_SAYS: tuple[tuple[tuple[str, ...], Cause], ...] = (
    (
        ("from proxy after CONNECT", "CONNECT tunnel failed", "Could not resolve proxy"),
        (Unavailable, "the proxy for {host} rejected the request", "yes"),
    ),
    (
        ("Could not resolve host", "Name or service not known"),
        (Unavailable, "the name {host} cannot be resolved", "yes"),
    ),
    (
        (
            "Authentication failed",
            "could not read (Username|Password)",
            r"Permission denied \(",
            "Access denied",
        ),
        (CredentialsRefused, "{host} rejected the credentials for the repository", "no"),
    ),
    (
        ("Host key verification failed",),
        (ConfigurationError, "the host key of {host} is not known on this machine", "no"),
    ),
    (
        ("repository .*not found", "does not appear to be a git repository"),
        (
            ConfigurationError,
            "{host} has no such repository, or these credentials have no access to it",
            "no",
        ),
    ),
    (
        ("Remote branch .* not found", "couldn't find remote ref"),
        (ConfigurationError, "the repository of {host} has no such branch", "no"),
    ),
    (
        ("certificate", "SSL routines", "SSL_ERROR"),
        (Unavailable, "the TLS certificate of {host} was rejected", "no"),
    ),
    (
        ("timed out", "too slow"),
        (Unavailable, "{host} did not answer in time", "yes"),
    ),
    (
        ("Connection refused", "Failed to connect", "Couldn't connect"),
        (Unavailable, "{host} refused the connection", "yes"),
    ),
    (
        (
            "not valid: is this a git repository",
            "invalid server response",
            "protocol error",
            "bad line length",
            "expected service",
        ),
        (Unavailable, "the response from {host} is not that of a git repository", "once"),
    ),
    (
        (
            "Empty reply",
            "early EOF",
            "RPC failed",
            "disconnect",
            "hung up",
            "reset by peer",
            "Recv failure",
            "fetch-pack",
            "index-pack",
            "expected flush",
            "remote-curl",
            "transfer closed",
        ),
        (Unavailable, "the response from {host} was cut off", "once"),
    ),
)


def of_clone(exchange: Exchange, host: str) -> Cause | None:
    """The meaning of a failed clone; None for anything else."""
    if exchange.method != _METHOD:
        return None
    return _cause("\n".join(link.text.partition("stderr:")[2] for link in exchange.chain), host)


def of_package(text: str) -> Cause | None:
    """Why ``dbt deps`` did not get a package from git; None for any other output."""
    found = _PACKAGE.search(text)
    if found is None:
        return None
    host = urlsplit(found["url"]).hostname or "the git repository"
    kind, says, retry = _cause(text[found.end() :], host)
    return kind, f"dbt cannot download a package: {says}", retry


def _cause(text: str, host: str) -> Cause:
    text = _URL.sub("", text)
    status = _STATUS.search(text)
    if status:
        return _of_status(int(status[1]), host)
    for patterns, (kind, says, retry) in _SAYS:
        if re.search("|".join(patterns), text):
            return kind, says.format(host=host), retry
    return Unavailable, f"the clone from {host} failed", "once"


def _of_status(status: int, host: str) -> Cause:
    says = f"{host} answered {status}"
    if status in (401, 403):
        return CredentialsRefused, says, "no"
    if status in (408, 429) or status >= 500:  # noqa: PLR2004
        return Unavailable, says, "yes"
    return ConfigurationError, says, "no"


def clone_without_project(exchange: Exchange) -> str | None:
    """The failure if the last event is a clone without a dbt project."""
    if exchange.method != _METHOD:
        return None
    return (
        f"the clone from {urlsplit(exchange.url).netloc} has no dbt project where the component "
        "expects one: the default branch is missing or empty, or repo_relative_path names another "
        "directory"
    )


def is_cloned(exchange: Exchange) -> bool:
    """True once the clone has finished: then something else takes the time."""
    return exchange.method == _METHOD and exchange.status is not None
