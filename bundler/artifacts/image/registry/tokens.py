"""Authentication at a registry: Basic, or a short-lived token from the service that it names.

A registry that requires authentication answers 401 with a challenge. A token is for a *scope*, such
as ``repository:acme/shop:pull,push``, and is kept until the registry refuses it. Threads that are
refused for the same scope concurrently share one new token. See
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from bundler.artifacts.image.registry.credentials import Credentials, Logins
from bundler.errors import CredentialsRefused, ToolFailed

Scope = tuple[str, ...]
# Sends a request (method, address, headers, body), returns the status and the start of the answer.
Send = Callable[[str, str, Mapping[str, str], bytes | None], tuple[int, bytes]]

_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s,]+))')
_OK = 200
_REFUSED = (400, 401, 403)


class Challenge(msgspec.Struct, frozen=True):
    """A registry's refusal of a request.

    text: the ``WWW-Authenticate`` header. refused: the request's ``Authorization``. again: whether
    that was the answer to a challenge. plain: whether the registry is contacted without TLS.
    """

    text: str
    scope: Scope
    refused: str | None = None
    again: bool = False
    plain: bool = False

    @property
    def kind(self) -> str:
        return self.text.partition(" ")[0].lower()

    @property
    def parameters(self) -> dict[str, str]:
        found = _PARAMETER.findall(self.text.partition(" ")[2])
        return {name.lower(): quoted or bare for name, quoted, bare in found}


class Authorizer:
    """The ``Authorization`` header for each scope. Without a challenge there is none."""

    def __init__(self, host: str, logins: Logins, send: Send) -> None:
        self._host = host
        self._logins = logins
        self._send = send
        self._headers: dict[Scope, str] = {}
        self._locks: dict[Scope, threading.Lock] = {}

    def header(self, scope: Scope) -> str | None:
        return self._headers.get(scope)

    def answer(self, challenge: Challenge) -> None:
        """Makes a new header for the challenge's scope.

        Raises `CredentialsRefused` if there is nothing (more) to answer with.
        """
        scope = challenge.scope
        with self._locks.setdefault(scope, threading.Lock()):
            if self._headers.get(scope) == challenge.refused:  # else another thread has a new one
                self._headers.pop(scope, None)
                self._headers[scope] = self._renewed(challenge)

    def _renewed(self, challenge: Challenge) -> str:
        repository = _repository(challenge.scope)
        credentials = self._logins.of(repository)
        header = None if challenge.again else self._header(challenge, credentials)
        if header is None and credentials is not None:
            other = self._logins.after(credentials, repository)
            header = self._header(challenge, other) if other != credentials else None
        if header is None:
            raise self.refused(challenge.scope)
        return header

    def refused(self, scope: Scope) -> CredentialsRefused:
        known = self._logins.of(_repository(scope)) is not None
        what = "rejects the credentials" if known else "requires credentials"
        return CredentialsRefused(
            f"The registry {self._host} {what}.",
            hint=f"Run docker login {self._host}, or set DOCKER_AUTH_CONFIG or REGISTRY_AUTH_FILE.",
        )

    def _header(self, challenge: Challenge, credentials: Credentials | None) -> str | None:
        """The answer with these credentials; None if there is none, or they are refused."""
        own = None
        if challenge.kind == "bearer":
            if credentials is None or not credentials.bearer:
                return self._token(challenge, credentials)
            own = f"Bearer {credentials.bearer}"
        elif challenge.kind == "basic" and credentials is not None and credentials.user:
            own = credentials.basic
        return None if own == challenge.refused else own

    def _token(self, challenge: Challenge, credentials: Credentials | None) -> str | None:
        parameters = challenge.parameters
        realm = parameters.get("realm", "")
        try:
            parts = urlsplit(realm)
        except ValueError:
            parts = urlsplit("")
        # An attacker who can change a plain answer must not learn the password by naming a realm.
        if not parts.hostname or (
            parts.scheme != "https" and not (challenge.plain and parts.scheme)
        ):
            raise ToolFailed(
                f"The registry {self._host} refers to a token service without TLS "
                "or without an address."
            )
        service = parameters.get("service", "")
        # For requests without a scope, such as `/v2/`, the challenge's own.
        scopes = challenge.scope or tuple(filter(None, [parameters.get("scope")]))
        if credentials is not None and credentials.identity:
            form = {
                "grant_type": "refresh_token",
                "client_id": "state-bundler",
                "service": service,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            status, raw = self._send("POST", realm, headers, urlencode(form).encode())
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            fields = urlencode([("service", service), *(("scope", scope) for scope in scopes)])
            address = f"{realm}{'&' if parts.query else '?'}{fields}"
            status, raw = self._send("GET", address, headers, None)
        return None if status in _REFUSED else f"Bearer {_token_in(raw, self._host, status)}"


def _repository(scope: Scope) -> str:
    """The first one: a mount's scope also names the repository that it is from."""
    return scope[0].split(":")[1] if scope else ""


def _token_in(raw: bytes, host: str, status: int) -> str:
    try:
        answer: Any = json.loads(raw) if status == _OK else None
    except (ValueError, RecursionError):
        answer = None
    token = isinstance(answer, dict) and (answer.get("token") or answer.get("access_token"))
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ToolFailed(f"The token service of {host} answered {status} without a token.")
    return token
