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

from bundler.artifacts.image.registry.credentials import Credentials
from bundler.errors import CredentialsRefused, ToolFailed

Scope = tuple[str, ...]
# Sends a request (method, address, headers, body), returns the status and the start of the answer.
Send = Callable[[str, str, Mapping[str, str], bytes | None], tuple[int, bytes]]

_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s,]+))')
_OK = 200
_REFUSED = (400, 401, 403)


class Authorizer:
    """The ``Authorization`` header for each scope. Without a challenge there is none.

    find: gives the credentials for a repository.
    """

    def __init__(self, host: str, find: Callable[[str], Credentials | None], send: Send) -> None:
        self._host = host
        self._find = find
        self._send = send
        self._headers: dict[Scope, str] = {}
        self._locks: dict[Scope, threading.Lock] = {}
        self._found: dict[str, Credentials | None] = {}

    def header(self, scope: Scope) -> str | None:
        return self._headers.get(scope)

    def answer(self, challenge: str, scope: Scope, refused: str | None, *, plain: bool) -> None:
        """Answers a challenge.

        refused: the header of the refused request. plain: whether the registry is contacted without
        TLS. Raises `CredentialsRefused` if there is nothing (more) to answer with.
        """
        with self._locks.setdefault(scope, threading.Lock()):
            if self._headers.get(scope) == refused:  # else another thread has got a new one
                self._renew(challenge, scope, refused, plain=plain)

    def _renew(self, challenge: str, scope: Scope, before: str | None, *, plain: bool) -> None:
        self._headers.pop(scope, None)
        kind = challenge.partition(" ")[0].lower()
        if kind == "bearer":
            found = {name.lower(): quoted or bare for name, quoted, bare in _parameters(challenge)}
            self._headers[scope] = f"Bearer {self._token(found, scope, plain=plain)}"
        elif kind == "basic":
            credentials = self._credentials(scope)
            if credentials is None or not credentials.user or credentials.basic == before:
                raise self.refused(scope)
            self._headers[scope] = credentials.basic
        else:
            raise self.refused(scope)

    def refused(self, scope: Scope) -> CredentialsRefused:
        known = self._credentials(scope) is not None
        what = "rejects the credentials" if known else "requires credentials"
        return CredentialsRefused(
            f"The registry {self._host} {what}.",
            hint=f"Run docker login {self._host}, or set DOCKER_AUTH_CONFIG or REGISTRY_AUTH_FILE.",
        )

    def _credentials(self, scope: Scope) -> Credentials | None:
        """Those for the scope's first repository: a mount also names the one that it is from."""
        repository = scope[0].split(":")[1] if scope else ""
        if repository not in self._found:
            self._found[repository] = self._find(repository)
        return self._found[repository]

    def _token(self, challenge: Mapping[str, str], scope: Scope, *, plain: bool) -> str:
        credentials = self._credentials(scope)
        if credentials is not None and credentials.bearer:
            return credentials.bearer
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        # An attacker who can change a plain answer must not learn the password by naming a realm.
        if not parts.hostname or (parts.scheme != "https" and not (plain and parts.scheme)):
            raise ToolFailed(
                f"The registry {self._host} refers to a token service without TLS "
                "or without an address."
            )
        fields = [("service", challenge.get("service", ""))]
        # For requests without a scope, such as `/v2/`, the challenge's own.
        fields += [("scope", item) for item in scope or (challenge.get("scope", ""),) if item]
        if credentials is not None and credentials.identity:
            status, raw = self._exchanged(realm, fields, credentials.identity)
        else:
            headers = {"Authorization": credentials.basic} if credentials else {}
            address = f"{realm}{'&' if parts.query else '?'}{urlencode(fields)}"
            status, raw = self._send("GET", address, headers, None)
        if status in _REFUSED:
            raise self.refused(scope)
        return _token_in(raw, self._host, status)

    def _exchanged(
        self, realm: str, fields: list[tuple[str, str]], identity: str
    ) -> tuple[int, bytes]:
        scopes = " ".join(value for name, value in fields if name == "scope")
        form = {
            "grant_type": "refresh_token",
            "client_id": "state-bundler",
            "service": dict(fields)["service"],
            "scope": scopes,
            "refresh_token": identity,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", realm, headers, urlencode(form).encode())


def _parameters(challenge: str) -> list[tuple[str, str, str]]:
    return _PARAMETER.findall(challenge.partition(" ")[2])


def _token_in(raw: bytes, host: str, status: int) -> str:
    answer: Any = None
    if status == _OK:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
    token = isinstance(answer, dict) and (answer.get("token") or answer.get("access_token"))
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ToolFailed(f"The token service of {host} answered {status} without a token.")
    return token
