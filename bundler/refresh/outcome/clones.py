"""Why a ``git clone`` failed, from what git said.

dagster-dbt fetches a project from a git repository by GitPython, which runs git in English
(``LC_ALL=C``). The texts are those of git 2.30 and later, of the libcurl inside it and of ssh.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from bundler.errors import ConfigurationError, CredentialsRefused, Unavailable
from bundler.refresh.outcome.exchanges import Exchange
from bundler.refresh.outcome.faults import FAULTS
from bundler.refresh.outcome.findings import Cause, of_status

_METHOD = "git-clone"
_STATUS = re.compile(r"(?:HTTP |returned error: )(\d{3})\b")
_PACKAGE = re.compile(r"Error (?:checking out spec='.*?' for|cloning) repo (?P<url>\S+)")
_URL = re.compile(r"'[^']*://[^']*'")
# In this order: the last lines of a failed clone contain both general and specific errors.
_SAYS: tuple[tuple[str, Cause], ...] = (
    ("from proxy after CONNECT|CONNECT tunnel failed|Could not resolve proxy", FAULTS["proxy"]),
    ("Could not resolve host|Name or service not known", FAULTS["dns"]),
    (
        (
            r"Authentication failed|could not read (Username|Password)|Permission denied \("
            "|Access denied"
        ),
        Cause(CredentialsRefused, "{host} rejected the credentials for the repository"),
    ),
    (
        "Host key verification failed",
        Cause(ConfigurationError, "the host key of {host} is not known on this machine"),
    ),
    (
        "repository .*not found|does not appear to be a git repository",
        Cause(
            ConfigurationError,
            "{host} has no such repository, or these credentials have no access to it",
        ),
    ),
    (
        "Remote branch .* not found|couldn't find remote ref",
        Cause(ConfigurationError, "the repository of {host} has no such branch"),
    ),
    (
        "certificate|SSL routines|SSL_ERROR",
        Cause(
            Unavailable,
            "the TLS certificate of {host} was rejected",
            hint="Check the certificate of {host}, and the CAs that git trusts (http.sslCAInfo).",
        ),
    ),
    ("timed out|too slow", FAULTS["timeout"]),
    ("Connection refused|Failed to connect|Couldn't connect", FAULTS["refused"]),
    (
        (
            "not valid: is this a git repository|invalid server response|protocol error"
            "|bad line length|expected service"
        ),
        Cause(Unavailable, "the response from {host} is not that of a git repository", "once"),
    ),
    (
        (
            "Empty reply|early EOF|RPC failed|disconnect|hung up|reset by peer|Recv failure"
            "|fetch-pack|index-pack|expected flush|remote-curl|transfer closed"
        ),
        FAULTS["cut"],
    ),
    ("", Cause(Unavailable, "the clone from {host} failed", "once")),
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
    cause = _cause(text[found.end() :], host)
    return msgspec.structs.replace(cause, says=f"dbt cannot download a package: {cause.says}")


def _cause(text: str, host: str) -> Cause:
    text = _URL.sub("", text)
    if status := _STATUS.search(text):
        return of_status(int(status[1]), host)
    return next(cause for pattern, cause in _SAYS if re.search(pattern, text)).at(host)


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
