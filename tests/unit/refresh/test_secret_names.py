"""Which names of variables mean that the value is secret."""

from __future__ import annotations

import pytest

from bundler.refresh.secret_values import collect
from bundler.system.secret_names import has_a_secret_name

_SECRET = """
    MYSQL_PWD DB_PASS DBPASS PGPASSWORD SSHPASS GPG_PASSPHRASE GITHUB_PAT AZURE_DEVOPS_EXT_PAT
    SERVICE_JWT REDISCLI_AUTH BASIC_AUTH WEBHOOK_SIGNATURE BLOB_SAS SENTRY_DSN
    SLACK_WEBHOOK_URL AZURE_STORAGE_CONNECTION_STRING SNOWFLAKE_CONN_STR VENDOR_APIKEY
    DB_PASS_2 clientSecret SESSION_COOKIE VENDOR_AUTHORIZATION
"""
_OTHERS = """
    PATH PWD OLDPWD PASSENGER_APP_ENV KEYBOARD XKB_KEYMAP KEYSTONE_REGION PATTERN COMPASS_HOME
    AUTHOR SASL_MECHANISM DESIGN_SYSTEM TOKEN_URL AUTH_TYPE SECRET_NAME PASSWORD_MIN_LENGTH
    STRIPE_PUBLISHABLE_KEY MONKEY_PATCH BYPASS_CACHE
"""


@pytest.mark.parametrize("name", _SECRET.split())
def test_these_names_mean_secrets(name: str) -> None:
    assert has_a_secret_name(name)
    assert collect({name: "canary-value-1"}).values == {name: "canary-value-1"}


@pytest.mark.parametrize("name", _OTHERS.split())
def test_these_names_do_not(name: str) -> None:
    assert not has_a_secret_name(name)
    assert not collect({name: "canary-value-1"}).values
