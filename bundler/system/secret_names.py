"""Names that mark a value as secret: of variables, JSON members and URL parameters."""

from __future__ import annotations

import re

_ANYWHERE = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|CREDENTIAL|AUTHORIZATION|APIKEY|WEBHOOK"
    r"|CONN(?:ECTION)?_?STR(?:ING)?"
)
_WORD_OF_A_SECRET = re.compile(
    r"AUTH|BEARER|COOKIES?|DSN|HMAC|JWTS?|PATS?|PW|SAS|SIG|SIGNATURE|\w*(?:KEYS?|PASS|PWD)"
)
_OTHER_WORD = re.compile(r"BYPASS|COMPASS|DONKEY|HOCKEY|HOTKEYS?|JOCKEY|MONKEY|TURKEY|WHISKEY")
# A name with one of these endings is about a secret, but the value is not one: TOKEN_URL,
# AUTH_TYPE.
_SETTING = re.compile(
    r"ALG|ALGORITHM|COUNT|DIR|DIRECTORY|DISABLED|DURATION|ENABLED|ENDPOINT|EXPIRATION|EXPIRES"
    r"|EXPIRY|FILE|FILENAME|FORMAT|HOST|HOSTNAME|ISSUER|LENGTH|LIFETIME|LIMIT|METHODS?|MODE|NAME"
    r"|PATH|POLICY|PORT|PREFIX|PROVIDER|REALM|REGION|REQUIRED|SCHEME|SCOPES?|SERVER|SIZE|SOCK"
    r"|TIMEOUT|TTL|TYPES?|URI|URLS?|USER|USERNAME|VERSION"
)
_PUBLIC = frozenset(("PUBLIC", "PUBLISHABLE"))
_DIRECTORIES = ("PWD", "OLDPWD")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def has_a_secret_name(name: str) -> bool:
    """Whether a name says that its value is secret."""
    words = _words(name)
    if not is_about_a_secret(name):
        return False
    return "WEBHOOK" in words or not _SETTING.fullmatch(words[-1])


def is_about_a_secret(name: str) -> bool:
    """The same, also for names such as ``TOKEN_FILE``."""
    words = _words(name)
    if name in _DIRECTORIES:
        return False
    if _ANYWHERE.search("_".join(words)):
        return True
    return any(map(_is_secret, words)) and _PUBLIC.isdisjoint(words)


def _words(name: str) -> list[str]:
    return [word.upper() for word in _WORD.findall(name)]


def _is_secret(word: str) -> bool:
    return bool(_WORD_OF_A_SECRET.fullmatch(word)) and not _OTHER_WORD.fullmatch(word)
