"""Recognises private keys and issued tokens by their form, without any variable that names them.

The search of a state for the values of secrets (`bundler.refresh.secrets`) also looks for the
*marks* that such things begin with. Only if one is found, its detector is used: those of the
library detect-secrets, and a few for what that does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from bundler.refresh.secret_forms import forms, in_base64

PRIVATE_KEY = "a private key"
_PEM = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:\\+[rnt]|[\s\"',+>|]|[A-Z][A-Za-z-]+: [^\\\n]{0,200}){0,64}[A-Za-z0-9+/]{16,}"
)
_PEM_MARK = "PRIVATE KEY-----"
# The beginning of PKCS #8 in binary, for RSA, P-256 and Ed25519; also in base64 without PEM.
_DER_MARKS = tuple(
    map(
        bytes.fromhex,
        (
            "020100300d06092a864886f70d01010105000482",
            "020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420",
            "302e020100300506032b657004220420",
        ),
    )
)
_CONTAINERS = (".jks", ".kdbx", ".keystore", ".keytab", ".p12", ".pfx", ".ppk")
_JWT = "jwt.JwtTokenDetector"
# mark -> module and class of detect_secrets.plugins
_LIBRARY = {
    **dict.fromkeys(("AKIA", "ASIA", "ABIA", "ACCA"), "aws.AWSKeyDetector"),
    "AccountKey=": "azure_storage_key.AzureStorageKeyDetector",
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), "github_token.GitHubTokenDetector"),
    **dict.fromkeys(
        ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-", "glptt-", "gloas-"),
        "gitlab_token.GitLabTokenDetector",
    ),
    **dict.fromkeys(("eyJhbGciOi", "eyJ0eXAiOi", "eyJraWQiOi", "eyJjdHkiOi"), _JWT),
    "T3BlbkFJ": "openai.OpenAIDetector",
    "pypi-Ag": "pypi_token.PypiTokenDetector",
    "SG.": "sendgrid.SendGridDetector",
    **dict.fromkeys(
        ("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "hooks.slack.com/services/"),
        "slack.SlackDetector",
    ),
    "sq0csp-": "square_oauth.SquareOAuthDetector",
    **dict.fromkeys(("sk_live_", "rk_live_"), "stripe.StripeDetector"),
}
# mark -> what it is, and its pattern
_OURS = {
    _PEM_MARK: (PRIVATE_KEY, _PEM),
    "PRIVATE KEY BLOCK-----": (PRIVATE_KEY, _PEM),
    "PuTTY-User-Key-File-": (PRIVATE_KEY, r"PuTTY-User-Key-File-\d: \S"),
    "AGE-SECRET-KEY-1": (PRIVATE_KEY, r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    ":_authToken=": ("an npm token", r":_authToken=\s{0,9}(?:npm_\w{36}|[A-Fa-f0-9-]{36})"),
    "github_pat_": ("a GitHub token", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    "AIza": ("a Google API key", r"(?<![\w-])AIza[\w-]{35}(?![\w-])"),
    "GOCSPX-": ("a Google client secret", r"GOCSPX-[\w-]{28}"),
    "dapi": ("a Databricks token", r"(?<!\w)dapi[0-9a-f]{32}(?!\w)"),
    "dbtc_": ("a dbt Cloud token", r"(?<!\w)dbtc_[\w-]{30,}"),
    "dbtu_": ("a dbt Cloud token", r"(?<!\w)dbtu_[\w-]{30,}"),
    "hvs.": ("a Vault token", r"(?<!\w)hvs\.[\w-]{24,}"),
    "sk-ant-": ("an Anthropic API key", r"sk-ant-[\w-]{32,}"),
}
_LOOKS_LIKE = "what looks like: "
_EXAMPLE = re.compile(r"(?i)example")


@cache
def marks() -> dict[bytes, str]:
    """What to search for, and the name under which `inspect` looks closer there."""
    found = {mark.encode(): detector for mark, detector in _LIBRARY.items()}
    found |= {mark.encode(): mark for mark in _OURS}
    encoded = forms(_PEM_MARK) - {_PEM_MARK.encode()}
    encoded |= {form for der in _DER_MARKS for form in (der, *in_base64(der))}
    return found | dict.fromkeys(encoded, "")


def inspect(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Where a text that contains a mark of this name has key material, and what it is."""
    for one, what in _by_pattern(name, text) if name in _OURS else _by_library(name, text):
        if not _EXAMPLE.search(one[0]):  # from the documentation of AWS
            yield one.start(), what


def redacted(text: str) -> str:
    """The text without the tokens that are known by their form."""
    names = {name for mark, name in marks().items() if name and mark.decode() in text}
    for name in sorted(names):
        found = _by_pattern(name, text) if name in _OURS else _by_library(name, text)
        for token, what in {one[0]: what for one, what in found}.items():
            text = text.replace(token, f"[{what.removeprefix(_LOOKS_LIKE)}]")
    return text


def is_container(path: str) -> bool:
    """Whether a file's name says that it contains private keys, in a binary format."""
    return path.lower().endswith(_CONTAINERS)


def _by_pattern(name: str, text: str) -> Iterator[tuple[re.Match[str], str]]:
    what, pattern = _OURS[name]
    yield from ((found, what) for found in re.finditer(pattern, text))


def _by_library(name: str, text: str) -> Iterator[tuple[re.Match[str], str]]:
    detector = _detector(name)
    for pattern in detector.denylist:
        for found in _matches(pattern, name, text):
            if getattr(detector, "is_formally_valid", bool)(found[0]):
                yield found, f"{_LOOKS_LIKE}{detector.secret_type}"


def _matches(pattern: re.Pattern[str], name: str, text: str) -> Iterator[re.Match[str]]:
    if name != _JWT:
        yield from pattern.finditer(text)
        return
    # Its pattern would match again anywhere inside of a long word.
    for begin in re.finditer(r"(?:(?<![\w-])|(?<=\\[nrt]))eyJ", text):
        found = pattern.match(text, begin.start())
        if found is not None:
            yield found


@cache
def _detector(name: str) -> Any:
    module, _, kind = name.partition(".")
    return getattr(import_module(f"detect_secrets.plugins.{module}"), kind)()
