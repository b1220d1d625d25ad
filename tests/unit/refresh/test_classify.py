"""Classifying where no server is needed; the fault table is in test_refresh_outages.py."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

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
from bundler.refresh.outcome.classify import _BODIES, failure_of, of_command, of_exchange
from bundler.refresh.outcome.exchanges import Exchange, Link, Report, is_expected
from bundler.refresh.outcome.findings import quoted
from bundler.refresh.secrets import Secrets

COMPONENT = Component("Key[x]", "LOCAL_FILESYSTEM", "command", location="/usr/bin/curl")
GOOD = Exchange(1, "GET", "https://host:443/v1", "", 200)


def link(name: str, text: str = "", **fields: object) -> Link:
    simple = name.rpartition(".")[2]
    return Link(type=name, names=frozenset({simple}), text=text, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exit_code", "output", "kind", "retry"),
    [
        (6, "curl: (6) Could not resolve host: x", Unavailable, "yes"),
        (7, "curl: (7) Failed to connect", Unavailable, "yes"),
        (22, "curl: (22) The requested URL returned error: 404", ConfigurationError, "no"),
        (22, "curl: (22) The requested URL returned error: 401", CredentialsRefused, "no"),
        (22, "curl: (22) The requested URL returned error: 503", Unavailable, "yes"),
        (28, "curl: (28) Operation timed out", Unavailable, "yes"),
        (60, "curl: (60) SSL certificate problem", Unavailable, "no"),
        (1, "something else", ToolFailed, "no"),
    ],
)
def test_what_curl_says_is_understood(
    exit_code: int, output: str, kind: type[BundlerError], retry: str
) -> None:
    failure = of_command(COMPONENT, exit_code, output, secrets=Secrets({}))
    assert failure is not None
    assert (type(failure.error), failure.retry) == (kind, retry)
    assert f"exit code {exit_code}" in failure.error.what


def test_a_command_that_succeeds_has_not_failed() -> None:
    assert of_command(COMPONENT, 0, "curl: (6)", secrets=Secrets({})) is None


@pytest.mark.parametrize(
    ("chain", "last", "kind"),
    [
        ((link("builtins.KeyError", "'items'", where="x.py:1 in f"),), GOOD, BadData),
        (
            (link("builtins.KeyError", "'A'", where="/lib/os.py:679 in f"),),
            GOOD,
            ConfigurationError,
        ),
        ((link("builtins.KeyError", "'items'"),), None, ToolFailed),
        (
            (link("dagster_dbt.errors.X", "Parsing Error Env var required but not provided: 'A'"),),
            None,
            ConfigurationError,
        ),
        ((link("json.decoder.JSONDecodeError"),), GOOD, Unavailable),
        ((link("json.decoder.JSONDecodeError"),), None, ToolFailed),
        ((link("vendor.Error"), link("socket.gaierror")), GOOD, Unavailable),
        ((link("vendor.Error", status=403),), GOOD, CredentialsRefused),
        ((link("builtins.OSError", errno=errno.ENOSPC),), None, InputOutputError),
        ((link("dagster.Failure", "dbt Cloud run '7' failed!"),), GOOD, ToolFailed),
        (
            (link("builtins.Exception", "Run 7 did not complete within 60 seconds."),),
            GOOD,
            Unavailable,
        ),
    ],
)
def test_without_a_failed_exchange_the_chain_decides(
    chain: tuple[Link, ...], last: Exchange | None, kind: type[BundlerError]
) -> None:
    failure = failure_of(COMPONENT, Report(last=last, raised=chain), secrets=Secrets({}))
    assert failure is not None
    assert type(failure.error) is kind, failure.error


def test_the_wire_goes_before_the_exception() -> None:
    exchange = Exchange(1, "GET", "https://host:443/v1", "", 503)
    report = Report(failed=(exchange,), raised=(link("builtins.UnboundLocalError"),))
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert failure.error.what == "Key[x]: host:443 answered 503 (GET /v1)."


def test_a_swallowed_failure_is_one_and_says_how_to_allow_it() -> None:
    exchange = Exchange(1, "GET", "https://host:443/v1/a", "", 404)
    failure = failure_of(COMPONENT, Report(failed=(exchange,), returned=True), secrets=Secrets({}))
    assert failure is not None
    assert "continued without that part" in failure.error.what
    assert 'allow-http = ["GET /v1/a 404"]' in failure.error.hint


def test_no_retry_is_added_where_the_library_has_retried() -> None:
    exchange = Exchange(1, "GET", "https://host:443/v1", "", 503, tries=4)
    report = Report(failed=(exchange,), raised=(link("x.E"),))
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert failure.retry == "no"


def test_of_dbts_long_story_only_what_dbt_said_is_quoted() -> None:
    text = (
        "The dbt CLI process with command\n\n`dbt parse`\n\nfailed with exit code `2`.\n\n"
        "Errors parsed from dbt logs:\n\nEncountered an error:\nCompilation Error in model orders\n"
        "  unexpected '}', expected ')'"
    )
    said = quoted(link("dagster_dbt.errors.DagsterDbtCliRuntimeError", text), Secrets({}))
    assert said == (
        "DagsterDbtCliRuntimeError: Compilation Error in model orders unexpected '}', expected ')'"
    )


def test_the_text_of_a_client_library_is_never_shown() -> None:
    text = "401, message='x', headers={'Authorization': 'Bearer unknown-secret'}"
    assert quoted(link("aiohttp.client_exceptions.ClientError", text), Secrets({})) == "ClientError"
    redacted = quoted(link("vendor.Error", "token=abcdefgh"), Secrets({"TOKEN": "abcdefgh"}))
    assert redacted == "Error: token=[TOKEN]"


def test_an_outage_that_was_passed_over_is_the_reason_of_the_wrong_request_after_it() -> None:
    asked = Exchange(1, "GET", "https://host:443/serverInfo", "a", 503)
    wrong = Exchange(2, "POST", "https://host:443/2.4/signin", "b", 400)
    raised = (link("vendor.Error", status=400),)
    report = Report(failed=(asked, wrong), last=wrong, raised=raised)
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert type(failure.error) is Unavailable
    assert "/serverInfo" in failure.error.what
    alone = failure_of(COMPONENT, Report(failed=(wrong,), raised=raised), secrets=Secrets({}))
    assert alone is not None
    assert type(alone.error) is ConfigurationError


ABANDONED = Exchange(
    1, "GET", "https://host:443/a", "a", chain=(link("x.CancelledError"),), is_abandoned=True
)


def kind_of(**report: Any) -> type[BundlerError]:
    failure = failure_of(COMPONENT, Report(**report), secrets=Secrets({}))
    assert failure is not None
    return type(failure.error)


def test_a_request_that_was_abandoned_since_another_failed_is_not_the_reason() -> None:
    missing = Exchange(2, "GET", "https://host:443/b", "b", 404)
    for failed in ((ABANDONED, missing), (missing, ABANDONED)):
        for raised in (link("vendor.Error", status=404), link("vendor.Error")):
            assert kind_of(failed=failed, raised=(raised,)) is ConfigurationError
        assert kind_of(failed=failed, returned=True) is ConfigurationError
    assert kind_of(failed=(ABANDONED,), returned=True) is Unavailable


def test_a_request_that_may_fail_is_the_reason_where_the_exception_shows_it() -> None:
    missing = Exchange(2, "GET", "https://host:443/b", "b", 404)
    report = {"failed": (ABANDONED,), "expected": (missing,), "last": missing}
    shown = (link("vendor.Error"), link("x.HTTPError", status=404))
    assert kind_of(**report, raised=shown) is ConfigurationError
    assert kind_of(**report, raised=(link("vendor.Error", wire=2),)) is ConfigurationError
    assert kind_of(**report, raised=(link("vendor.Error"),)) is ToolFailed
    assert kind_of(**report, raised=(link("builtins.KeyError"),)) is BadData


def test_a_request_that_was_abandoned_is_the_reason_of_a_timeout() -> None:
    missing = Exchange(2, "GET", "https://host:443/b", "b", 404)
    late = (link("builtins.TimeoutError"), link("x.CancelledError", wire=1))
    assert kind_of(failed=(ABANDONED, missing), raised=late) is Unavailable
    assert kind_of(failed=(ABANDONED,), raised=late[:1]) is Unavailable


def test_an_outage_after_the_wrong_request_had_begun_is_not_its_reason() -> None:
    wrong = Exchange(1, "GET", "https://host:443/b", "b", 404, newest=2)
    outage = Exchange(2, "GET", "https://host:443/a", "a", 503, newest=2)
    raised = (link("x.HTTPError", status=404),)
    for failed in ((outage, wrong), (wrong, outage)):
        assert kind_of(failed=failed, raised=raised) is ConfigurationError


def test_a_refusal_that_the_library_tries_again_until_the_deadline_is_a_refusal() -> None:
    refused = Exchange(1, "GET", "https://host:443/v1", "a", 401)
    report = Report(failed=(refused,), last=refused, waiting=refused)
    failure = failure_of(COMPONENT, report, secrets=Secrets({}), deadline=30.0)
    assert failure is not None
    assert type(failure.error) is CredentialsRefused
    assert "answered 401, and it did not finish within 30 s" in failure.error.what


def test_a_404_at_lookers_login_is_a_refusal() -> None:
    asked = Exchange(1, "POST", "https://x.cloud.looker.com:443/api/4.0/login", "a", 404)
    report = Report(failed=(asked,), last=asked, raised=(link("looker_sdk.error.SDKError"),))
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert type(failure.error) is CredentialsRefused


# --- what to do -----------------------------------------------------------------------------------


def hint_of(exchange: Exchange, **report: Any) -> str:
    component = msgspec.structs.replace(
        COMPONENT, environment_variables=("ACME_URL", "ACME_TOKEN", "ACME_ACCOUNT")
    )
    given = {"failed": (exchange,), "raised": (link("vendor.Error"),), **report}
    failure = failure_of(component, Report(**given), secrets=Secrets({}))
    assert failure is not None
    return failure.error.hint


def test_a_refusal_names_the_variable_of_the_credential() -> None:
    refused = Exchange(1, "GET", "https://host:443/v1", "", 401)
    assert hint_of(refused) == "Check the credentials (ACME_TOKEN), then try again."
    hint = hint_of(refused, environment=("OTHER_PASSWORD", "HOME_DIR"))
    assert hint == "Check the credentials (ACME_TOKEN, OTHER_PASSWORD), then try again."


def test_without_a_credential_by_name_what_names_a_place_is_left_out() -> None:
    component = msgspec.structs.replace(
        COMPONENT, environment_variables=("ACME_URL", "ACME_HOST", "ACME_USER")
    )
    report = Report(failed=(Exchange(1, "GET", "https://h:1/", "", 403),), raised=(link("x.E"),))
    failure = failure_of(component, report, secrets=Secrets({}))
    assert failure is not None
    assert failure.error.hint == "Check the credentials (ACME_USER), then try again."


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_answers_is_reachable(status: int) -> None:
    hint = hint_of(Exchange(1, "GET", "https://host:443/v1", "", status))
    assert "reachable" not in hint
    assert "contact the operator of host:443" in hint


@pytest.mark.parametrize(
    ("body", "status", "code", "allowed"),
    [
        ("html", 200, None, "GET /v1 html"),
        ("error-object", 200, 503, "GET /v1 error-object"),
        ("empty", 204, None, "GET /v1 204"),
        ("redirect", 302, None, "GET /v1 302"),
        ("partial", 206, None, "GET /v1 206"),
        ("accepted", 202, None, "GET /v1 202"),
        ("skipped", 200, None, "GET /v1 skipped"),
        ("not-modified", 304, None, "GET /v1 304"),
    ],
)
def test_what_is_advised_for_an_expected_answer_is_what_allows_it(
    body: str, status: int, code: int | None, allowed: str
) -> None:
    exchange = Exchange(1, "GET", "https://host:443/v1", "", status, body=body, code=code)
    assert f'allow-http = ["{allowed}"]' in hint_of(exchange, raised=(), returned=True)
    assert is_expected(exchange, [allowed])


def test_every_fault_of_a_body_has_its_words() -> None:
    page = (Path(__file__).parents[3] / "docs/explanation/refresh.md").read_text()
    table = page.partition("| name | what is rejected |\n")[2].partition("\n\n")[0]
    documented = re.findall(r"`([\w-]+)`", " ".join(it.split("|")[1] for it in table.splitlines()))
    faults = {*documented, "redirect", "unanswered"}
    assert faults == {*_BODIES, "error-object", "not-json"}
    for fault in faults:
        finding = of_exchange(Exchange(1, "GET", "https://host:443/v1", "", 200, body=fault))
        assert "host:443" in finding.says
        assert finding.kind in (Unavailable, BadData)


def test_the_error_of_aiohttps_parser_is_not_a_status() -> None:
    names = frozenset({"TransferEncodingError", "BadHttpMessage"})
    parser = Link(type="aiohttp.http_exceptions.TransferEncodingError", names=names, status=400)
    for report in (
        Report(last=GOOD, raised=(parser,)),
        Report(
            failed=(msgspec.structs.replace(GOOD, status=None, chain=(parser,)),), returned=True
        ),
    ):
        failure = failure_of(COMPONENT, report, secrets=Secrets({}))
        assert failure is not None
        assert type(failure.error) is Unavailable
        assert "was cut off" in failure.error.what


def test_a_library_that_cannot_be_watched_fails_the_key_by_name_and_version() -> None:
    report = Report(blind="acme 9.9: it has no acme.Client.send", returned=True)
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert type(failure.error) is ToolFailed
    assert "acme 9.9: it has no acme.Client.send" in failure.error.what


@pytest.mark.parametrize(
    "refused",
    [
        link("requests.exceptions.MissingSchema", "Invalid URL 'None/v1': No scheme supplied."),
        link("requests.exceptions.InvalidURL", "Invalid URL 'https:///v1': No host supplied"),
        link("httpx.UnsupportedProtocol", "Request URL is missing an 'http://' protocol."),
        link("urllib3.exceptions.LocationValueError", "No host specified."),
        link("aiohttp.client_exceptions.InvalidURL", "None/v1"),
        link("aiohttp.client_exceptions.InvalidUrlClientError", "None/v1"),
        link("builtins.ValueError", "unknown url type: 'None/v1'"),
    ],
)
@pytest.mark.parametrize("unset", [(), ("SHOP_URL",)])
def test_an_invalid_url_is_a_configuration_error(refused: Link, unset: tuple[str, ...]) -> None:
    component = msgspec.structs.replace(COMPONENT, unset_variables=unset)
    failure = failure_of(component, Report(raised=(refused,)), secrets=Secrets({}))
    assert failure is not None
    assert isinstance(failure.error, ConfigurationError)
    assert all(name in failure.error.what and name in failure.error.hint for name in unset)


def test_a_host_made_of_a_variable_that_is_not_set_is_not_an_outage() -> None:
    chain = (link("socket.gaierror"),)
    exchange = Exchange(1, "GET", "https://None.api.example/v1", "", chain=chain)
    report = Report(failed=(exchange,), raised=chain)
    component = msgspec.structs.replace(COMPONENT, unset_variables=("SHOP_ACCOUNT",))
    failure = failure_of(component, report, secrets=Secrets({}))
    assert failure is not None
    assert isinstance(failure.error, ConfigurationError)
    assert "SHOP_ACCOUNT" in failure.error.what
    failure = failure_of(COMPONENT, report, secrets=Secrets({}))
    assert failure is not None
    assert isinstance(failure.error, Unavailable)
