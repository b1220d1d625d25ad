"""`outcome.clones`: what git says of clones that fail. Real git: test_integration_dbt."""

from __future__ import annotations

import pytest

from bundler.errors import BundlerError, ConfigurationError, CredentialsRefused, Unavailable
from bundler.refresh.model import Component
from bundler.refresh.outcome.classify import failure_of
from bundler.refresh.outcome.clones import of_clone, of_package
from bundler.refresh.outcome.exchanges import Exchange, Link, Report
from bundler.refresh.secrets import Secrets

HOST = "git.example.com:443"
_ACCESS = "fatal: unable to access 'https://x/': "
_STATUS = f"{_ACCESS}The requested URL returned error:"
SAID = [
    (f"{_ACCESS}Could not resolve host: x", Unavailable, "yes"),
    (f"{_ACCESS}Failed to connect to x port 443", Unavailable, "yes"),
    ("ssh: connect to host x port 22: Connection refused", Unavailable, "yes"),
    (f"{_ACCESS}SSL certificate problem", Unavailable, "no"),
    (f"{_ACCESS}Received HTTP code 502 from proxy after CONNECT", Unavailable, "yes"),
    (f"{_STATUS} 503", Unavailable, "yes"),
    (f"{_STATUS} 403", CredentialsRefused, "no"),
    ("fatal: Authentication failed for 'https://x/'", CredentialsRefused, "no"),
    ("git@x: Permission denied (publickey).", CredentialsRefused, "no"),
    ("fatal: could not read Username for 'https://x': No such device", CredentialsRefused, "no"),
    ("fatal: repository 'https://x/certificate.git/' not found", ConfigurationError, "no"),
    ("Host key verification failed.", ConfigurationError, "no"),
    ("error: RPC failed; curl 18 transfer closed\nfatal: early EOF", Unavailable, "once"),
    ("fatal: https://x/info/refs not valid: is this a git repository?", Unavailable, "once"),
    ("fatal: something new", Unavailable, "once"),
]


def clone(stderr: str, url: str = "https://git.example.com:443/shop.git") -> Exchange:
    text = f"Cmd('git') failed\n  cmdline: git clone {url}\n  stderr: '{stderr}'"
    link = Link("git.exc.GitCommandError", frozenset({"GitCommandError"}), status=128, text=text)
    return Exchange(1, "git-clone", url, "x", chain=(link,))


@pytest.mark.parametrize(("stderr", "kind", "retry"), SAID)
def test_what_git_says_is_understood(stderr: str, kind: type[BundlerError], retry: str) -> None:
    cause = of_clone(clone(stderr), HOST)
    assert cause is not None
    assert (cause.kind, cause.retry) == (kind, retry)
    assert HOST in cause.says
    assert "{" not in cause.hint


def test_other_exchanges_are_none_of_it() -> None:
    assert of_clone(Exchange(1, "GET", "https://git.example.com/", "x"), HOST) is None


def test_the_message_names_key_host_and_repository() -> None:
    component = Component("DbtProjectComponent[x]", "LOCAL_FILESYSTEM", "dagster_dbt.X")
    exchange = clone("fatal: Authentication failed for 'https://x/'")
    report = Report(failed=(exchange,), raised=exchange.chain)
    failure = failure_of(component, report, secrets=Secrets({}))
    assert failure is not None
    assert failure.error.what == (
        "DbtProjectComponent[x]: git.example.com:443 rejected the credentials for the repository "
        "(git-clone /shop.git)."
    )


@pytest.mark.parametrize(
    ("story", "kind", "says"),
    [
        ("fatal: couldn't find remote ref nowhere", ConfigurationError, "has no such branch"),
        ("Cloning into 'x'...\nfatal: could not read Username", CredentialsRefused, "credentials"),
        ("fatal: unable to access 'x': CONNECT tunnel failed, response 502", Unavailable, "proxy"),
    ],
)
def test_a_package_of_dbt_that_git_does_not_get(
    story: str, kind: type[BundlerError], says: str
) -> None:
    text = f"Error checking out spec='nowhere' for repo https://git.example.com/utils.git\n{story}"
    cause = of_package(f"Internal Error\n  {text}")
    assert cause is not None
    assert cause.kind is kind
    assert says in cause.says
    assert "git.example.com" in cause.says
    assert of_package("Compilation Error in model x") is None
