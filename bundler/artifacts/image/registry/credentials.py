"""Credentials for registries: from ``docker login``, ``podman login``, or CI.

Tried in this order; the first source that knows the registry is used:

1. the file that ``REGISTRY_AUTH_FILE`` names (podman, skopeo, buildah),
2. the JSON in ``DOCKER_AUTH_CONFIG`` (GitLab CI),
3. ``config.json`` in ``DOCKER_CONFIG`` or ``~/.docker``,
4. podman's ``auth.json``.

All have docker's format: ``auths`` by registry (podman: also by repository), ``credHelpers`` and
``credsStore``, which name programs ``docker-credential-*``.

The Docker SDK only reads the third, does not support repositories, does not limit a helper's time,
and takes a quarter of a second to import.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bundler.artifacts.reference import HUB, Reference
from bundler.errors import ConfigurationError, ToolFailed
from bundler.system import process
from bundler.system.home import docker_configuration, home

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_SECONDS = 60.0
# A helper returns this instead of a user if the secret is a token (docker-credential-helpers).
_TOKEN_USER = "<token>"  # noqa: S105  # a word of the protocol
_NOT_FOUND = b"credentials not found"


class Credentials(msgspec.Struct, frozen=True):
    """user and password, or one token.

    identity: to be exchanged for one (OAuth 2's refresh). bearer: sent unchanged. None of it
    appears in a repr.
    """

    user: str = ""
    password: str = ""
    identity: str = ""
    bearer: str = ""

    def __repr__(self) -> str:
        return "Credentials()"

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


# Asks a program, named by its end, for the credentials of a server.
Helper = Callable[[str, str], Credentials | None]


def find(
    reference: Reference, environ: Mapping[str, str] = os.environ, ask: Helper | None = None
) -> Credentials | None:
    """The credentials for a repository; None if nobody has logged in. ask: instead of `ask_helper`.

    Raises `ConfigurationError` for a file that cannot be read, `ToolFailed` for a helper that
    fails.
    """
    for where, config in _configurations(environ):
        found = _in(config, where, reference, ask or partial(ask_helper, environ=environ))
        if found is not None:
            return found
    return None


class Logins:
    """The credentials for a registry's repositories. Each helper is asked once, even if it fails;
    thread-safe."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._found: dict[str, Credentials | None] = {}
        self._answers: dict[tuple[str, str], Credentials | ToolFailed | None] = {}
        self._lock = threading.Lock()

    def of(self, repository: str) -> Credentials | None:
        """Raises as `find` does."""
        with self._lock:
            if repository not in self._found:
                self._found[repository] = find(
                    Reference(self._host, repository), ask=self._ask_once
                )
            return self._found[repository]

    def after(self, refused: Credentials, repository: str) -> Credentials | None:
        """Looks again after a refusal: a helper's token may have expired since it was asked."""
        with self._lock:
            self._answers = {key: it for key, it in self._answers.items() if it != refused}
            if self._found.get(repository) == refused:
                del self._found[repository]
        return self.of(repository)

    def _ask_once(self, name: str, server: str) -> Credentials | None:
        if (name, server) not in self._answers:
            try:
                self._answers[name, server] = ask_helper(name, server)
            except ToolFailed as error:
                self._answers[name, server] = error
        answer = self._answers[name, server]
        if isinstance(answer, ToolFailed):
            raise ToolFailed(answer.what, hint=answer.hint)  # one for each that reports it
        return answer


def _configurations(environ: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    named = environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield named, _read(Path(named), required=True)
    inline = environ.get("DOCKER_AUTH_CONFIG")
    if inline:
        yield "DOCKER_AUTH_CONFIG", _parsed(inline.encode(), "DOCKER_AUTH_CONFIG")
    docker = docker_configuration(environ)
    yield str(docker), _read(docker)
    runtime = environ.get("XDG_RUNTIME_DIR")
    for below in (*([Path(runtime)] if runtime else []), home(environ) / ".config"):
        path = below / "containers" / "auth.json"
        yield str(path), _read(path)


def _read(path: Path, *, required: bool = False) -> Mapping[str, Any]:
    try:
        return _parsed(path.read_bytes(), str(path))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not required:
            return {}
        raise ConfigurationError(
            f"{path}, which holds registry credentials, cannot be read: {error.strerror}."
        ) from error


def _parsed(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        # Not chained: the parser's error quotes the text, which contains secrets.
        raise ConfigurationError(
            f"{where} is not a JSON object.", hint="Correct or remove it, then log in again."
        )
    return value


def _in(
    config: Mapping[str, Any], where: str, reference: Reference, ask: Helper
) -> Credentials | None:
    helpers = _table(config, "credHelpers")
    for key in _keys(reference):
        if isinstance(helpers.get(key), str):
            return ask(helpers[key], key)
    auths = {_normal(str(key)): value for key, value in _table(config, "auths").items()}
    for key in _keys(reference):
        entry = auths.get(_normal(key))
        found = _from_entry(entry, where, key) if isinstance(entry, dict) else None
        if found is not None:
            return found
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        key = _HUB_KEY if reference.host == HUB else reference.host
        return ask(store, key)
    return None


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _keys(reference: Reference) -> Iterator[str]:
    """The names that an entry may have, the closest first."""
    parts = reference.repository.split("/")
    for end in range(len(parts), 0, -1):
        yield f"{reference.host}/{'/'.join(parts[:end])}"
    yield reference.host
    if reference.host == HUB:
        yield from (_HUB_KEY, "index.docker.io", "registry-1.docker.io")


def _normal(key: str) -> str:
    """Older logins contain addresses: ``https://ghcr.io/v2/`` is ``ghcr.io``."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        bare = bare.removesuffix(version)
    return bare


def _from_entry(entry: Mapping[str, Any], where: str, key: str) -> Credentials | None:
    texts = {name: text for name, text in entry.items() if isinstance(text, str)}
    if bearer := texts.get("registrytoken"):
        return Credentials(bearer=bearer)
    if identity := texts.get("identitytoken"):
        return Credentials(identity=identity)
    if texts.get("auth"):
        try:
            pair = base64.b64decode(texts["auth"]).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        texts["username"], colon, texts["password"] = pair.partition(":")
        if not colon:
            raise ConfigurationError(
                f"{where} has an entry for {key} that cannot be read.",
                hint=f"Log in again: docker login {key.partition('/')[0]}",
            )
    user, password = texts.get("username"), texts.get("password")
    return Credentials(user, password) if user and password is not None else None


def ask_helper(
    name: str, server: str, environ: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Asks ``docker-credential-NAME``. See https://github.com/docker/docker-credential-helpers."""
    program = f"docker-credential-{name}"
    hint = f"Try: echo {server} | {program} get"
    done = process.run(
        [program, "get"], env=environ, stdin=server.encode(), timeout=_HELPER_SECONDS
    )
    if done.exit_code:
        if _NOT_FOUND in done.stdout.lower() or _NOT_FOUND in done.stderr.lower():
            return None
        raise ToolFailed(f"{program} has no credentials for {server}.", hint=hint)
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ToolFailed(f"{program} did not return a valid credential.", hint=hint) from None
    return Credentials(identity=secret) if user == _TOKEN_USER else Credentials(user, secret)
