"""The secret values of an environment: whole variables, and the secret parts of others.

A part is the password in a URL or in a connection string, a secret member of a JSON document, or a
private key. Parts are searched for in every variable and in the files that variables name.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bundler.refresh.secret_forms import Secret
from bundler.refresh.secrets import Secrets
from bundler.system.secret_names import has_a_secret_name, is_about_a_secret

# A shorter value occurs in a text by chance, as does a common word.
_SHORTEST_SECRET_BYTES = 8
_PLACEHOLDER = (
    r"(?i)anonymous|changeme|development|disabled|external|kerberos|localhost|password|postgres"
    r"|production|required|undefined|username|x-oauth-basic"
)
_SETTING = r"(?i)^([a-z][a-z0-9+.-]*://[^@?\s]*|[~.]{0,2}/.*|[a-z][a-z_-]*|[\d.:]+)$"
_URL = r"(?i)\b(?P<scheme>[a-z][a-z0-9+.-]{0,40})://(?P<rest>(?:(?![,;|][a-z][a-z0-9+.-]{0,40}://)[^\s\"'])+)"
_NOT_A_PORT = r"[^/?#@:\[]*:(?!\d{1,5}(?:[/?#]|$))"
_NO_SCHEME = r"^[\w.+-]+:(?P<value>[^@\s/]+)@(?!sha\d+:)[\w.(-]"
_PAIR = (
    r"(?m)(?:^|(?<=[\s;&?#,{\"'-]))(?P<name>[A-Za-z_][\w.-]*)[\"']?[ \t]*[=:][ \t]*"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s;&\"',}]+)"
)
_NETRC = r"\bpassword[ \t]+(?P<value>\S+)"
_PGPASS = r"(?m)^(?:(?:\\.|[^:\\\n])*:){4}(?P<value>.+)$"
_HEADER = r"(?i)\b(?:basic|bearer|token)[ +](?P<value>(?=[^\s\d]*\d)[\w.~+/=-]{16,})"
_TEMPLATES = ("$", "{", "<", "%")
_PRIVATE_KEY = r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<body>.*?)-----END"
_BASE64 = r"[\w+/-]{24,}={0,2}"
# How many characters of a base64 text are on one line, however it is wrapped.
_EXCERPT = 24
_LINE_LENGTHS = (64, 70, 76)
_LONG_BASE64 = 200
# A shell's functions, and the name of the test that runs us, are not settings.
_CODE = ("BASH_FUNC_", "PYTEST_CURRENT_TEST")
_MOST_FILE_BYTES = 64 * 1024
_MOST_DEPTH = 20

Part = tuple[str, str]  # what it is, such as "the password"; its value


def collect(
    environment: Mapping[str, str],
    *,
    named: Collection[str] = (),
    from_file: Collection[str] = (),
    excluded: Collection[str] = (),
    root: Path = Path(),
) -> Secrets:
    """The secrets of an environment.

    named: variables that the configuration calls secret. from_file: those that ``.env`` sets; in
    it, a URL without credentials, a path or a word is a setting, not a secret. root: the directory
    that file names are relative to.
    """
    values: dict[str, str] = {}
    parts: dict[Secret, None] = {}
    for name, value in environment.items():
        if name in excluded or name.startswith(_CODE):
            continue
        if _is_usable(value) and (name in named or _is_secret(name, value, from_file, root)):
            values[name] = value
        for what, part in _parts(value):
            if part != value and _is_usable(part):
                parts[Secret(name, part, f"{what} in {name}")] = None
        for what, part in _of_file(name, root, value):
            if _is_usable(part):
                parts[Secret(name, part, f"{what} in the file that {name} names")] = None
    settings = {name for name in values if name not in named and not has_a_secret_name(name)}
    settings -= {part.variable for part in parts}
    return Secrets(values, tuple(parts), frozenset(settings))


def named_files(environment: Mapping[str, str], root: Path) -> list[str]:
    """The files that variables name, in which `collect` looks for secrets."""
    values = {it for name, it in environment.items() if not name.startswith(_CODE)}
    return sorted(path for value in values if os.path.isfile(path := _path(root, value)))


def _path(root: Path, value: str) -> str:
    return os.path.join(root, os.path.expanduser(value))


def _is_usable(value: str) -> bool:
    value = value.strip()
    encoded = value.encode("utf-8", "surrogateescape")
    return len(encoded) >= _SHORTEST_SECRET_BYTES and not re.fullmatch(_PLACEHOLDER, value)


def _is_secret(name: str, value: str, from_file: Collection[str], root: Path) -> bool:
    if has_a_secret_name(name):
        return not os.path.exists(os.path.join(root, value))  # the name of a file is no secret
    return name in from_file and not re.match(_SETTING, value)


def _of_file(name: str, root: Path, value: str) -> Iterator[Part]:
    """The secrets in the file that a variable names."""
    text = _read(_path(root, value))
    yield from _parts(text)
    for pattern in (_NETRC, *((_PGPASS,) if "pgpass" in (name + value).lower() else ())):
        for found in re.finditer(pattern, text):
            yield "the password", found["value"]
    # The form of Docker's and Kubernetes' secrets: one line, and a name such as PASSWORD_FILE.
    if is_about_a_secret(name) and "\n" not in text.strip():
        yield "the secret", text.strip()


def _read(path: str) -> str:
    """The contents of a small regular text file; empty for anything else."""
    if not os.path.isfile(path):
        return ""
    try:
        # As text: a line's end must not become a part of a secret.
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_MOST_FILE_BYTES + 1)
    except (OSError, ValueError):
        return ""
    return "" if len(text) > _MOST_FILE_BYTES or "\0" in text else text


# --- parts ------------------------------------------------------------------------------------


def _parts(text: str, depth: int = 0) -> Iterator[Part]:
    """The secret parts of a text."""
    if depth > 2:  # noqa: PLR2004  # JSON in base64 in JSON
        return
    document = _document(text)
    if document is not None:
        yield from _in_document(document, "", depth, _MOST_DEPTH)
        return
    for found in re.finditer(_PRIVATE_KEY, text):
        yield "the private key", _excerpt(found["body"])
    yield from _in_urls(text)
    for found in re.finditer(_PAIR, text):
        value = found["value"].strip("\"'")
        if _names_a_secret(found["name"]) and not value.startswith(_TEMPLATES):
            yield f"the {found['name']}", value
            yield f"the {found['name']}", unquote(value)
    for found in re.finditer(_HEADER, text):
        yield "the credential", found["value"]
        yield from _in_base64(found["value"], depth)
    if re.fullmatch(_BASE64, text.strip()):
        yield from _in_base64(text.strip(), depth)
        if len(text) > _LONG_BASE64:
            yield "the value", _excerpt(text)


def _names_a_secret(name: str) -> bool:
    """Whether a member's name says so; a plain ``key`` usually belongs to a list."""
    return has_a_secret_name(name) and name.lower() not in ("key", "keys")


def _in_urls(text: str) -> Iterator[Part]:
    for found in re.finditer(_URL, text):
        rest = found["rest"]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" not in authority and re.match(_NOT_A_PORT, rest):
            authority = rest  # a password with an unescaped slash
        user, _, password = authority.rpartition("@")[0].partition(":")
        for part in (password, unquote(password)):
            yield "the password", part
        if not _is_usable(password) and found["scheme"].lower().endswith(("http", "https")):
            yield "the token", unquote(user)
    for found in re.finditer(_NO_SCHEME, text):
        yield "the password", found["value"]


def _in_base64(text: str, depth: int) -> Iterator[Part]:
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_" if {"-", "_"} & set(text) else None)
        inner = decoded.decode("ascii")
    except ValueError:
        return
    yield from _parts(inner, depth + 1)
    if inner.isprintable() and ":" in inner:  # HTTP's Basic authorization
        yield "the password", inner.partition(":")[2]


def _document(text: str) -> Any:
    """The value of a JSON object or array; None if the text is neither."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _in_document(value: Any, name: str, depth: int, left: int) -> Iterator[Part]:
    """name: of the nearest member that contains this value."""
    if isinstance(value, str):
        yield from _parts(value, depth + 1)
        if _names_a_secret(name) and "PRIVATE KEY" not in value:
            yield f"the {name}", value
    elif isinstance(value, dict) and left:
        for member, inner in value.items():
            yield from _in_document(inner, member, depth, left - 1)
    elif isinstance(value, list) and left:
        for inner in value:
            yield from _in_document(inner, name, depth, left - 1)


def _excerpt(body: str) -> str:
    """Characters of a base64 text that stay together, and that no public key contains.

    A private key's format begins with what is public or common to all keys; everything after the
    middle is private in PKCS #1, PKCS #8 and OpenSSH's format.
    """
    lines = re.split(r"\\r|\\n|\s", re.sub(r"[A-Za-z-]{1,40}: [^\\\n]*", "", body))
    joined = "".join(line for line in lines if re.fullmatch(r"[\w+/-]+=*", line))
    short = len(joined) < _LONG_BASE64
    wanted = _LINE_LENGTHS[0] - _EXCERPT if short else len(joined) * 6 // 10
    for begin in range(wanted, len(joined)):
        end = begin + _EXCERPT - 1
        if all(begin // length == end // length for length in _LINE_LENGTHS):
            return joined[begin : begin + _EXCERPT]
    return joined
