"""What is secret, and that no form of it stays in a text or goes unseen."""

from __future__ import annotations

import base64
import html
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.errors import BadData, BundlerError, ConfigurationError, CredentialsRefused
from bundler.project.options import KeyOptions
from bundler.refresh import scanning
from bundler.refresh.checks import check
from bundler.refresh.model import Component
from bundler.refresh.secret_values import collect
from bundler.refresh.secrets import Secrets, neutralise

VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=8, max_size=40
)
FORMS: tuple[Callable[[str], str | bytes], ...] = (
    lambda value: value,
    lambda value: f"{value}\n",
    lambda value: base64.b64encode(value.encode()),
    lambda value: base64.b64encode(b"user:" + value.encode() + b"\n"),
    lambda value: base64.urlsafe_b64encode(b"x" + value.encode() + b"tail"),
    lambda value: base64.b64encode(value.encode("utf-16-le")),
    lambda value: value.encode().hex(),
    lambda value: value.encode().hex().upper(),
    lambda value: base64.b32encode(b"abc" + value.encode() + b"d"),
    lambda value: base64.b32encode(value.encode()).lower(),
    lambda value: value.encode("utf-16"),
    lambda value: b"\0" + value.encode("utf-16-be"),
    lambda value: quote(value, safe=""),
    quote,
    quote_plus,
    lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False).replace("/", "\\/"),
    lambda value: json.dumps(json.dumps(value)),
    lambda value: json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e")
    .replace("&", "\\u0026"),
    lambda value: "".join(
        f"\\u{int.from_bytes(value.encode('utf-16-be')[at : at + 2], 'big'):04X}"
        for at in range(0, len(value.encode("utf-16-be")), 2)
    ),
    html.escape,
    lambda value: "".join(f"&#{ord(character)};" for character in value),
    lambda value: "".join(f"&#x{ord(character):X};" for character in value),
    repr,
)  # fmt: skip


def found_in(path: Path, secrets: Secrets) -> str | None:
    hit = secrets.scanner.first(path, staged_at=b"/nowhere", key_material_allowed=True)
    return hit.secret.variable if hit is not None and hit.secret is not None else None


@given(value=VALUES, before=st.binary(max_size=30), form=st.sampled_from(FORMS))
def test_a_secret_is_found_in_every_form_and_position(
    tmp_path_factory: pytest.TempPathFactory, value: str, before: bytes, form: object
) -> None:
    assert callable(form)
    path = tmp_path_factory.getbasetemp() / "state"
    written = form(value)
    path.write_bytes(before + (written.encode() if isinstance(written, str) else written) + before)
    assert found_in(path, Secrets({"NAME": value})) == "NAME"
    assert found_in(path, Secrets({"NAME": f"{value}\n"})) == "NAME"


@given(value=VALUES.filter(lambda value: value not in "before [NAME] after"))
def test_a_redacted_text_names_the_variable_in_place_of_the_value(value: str) -> None:
    redacted = Secrets({"NAME": value}).redact(f"before {value} after")
    assert redacted == "before [NAME] after"


def test_a_secret_across_the_border_of_two_reads_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(scanning, "_OVERLAP_BYTES", 1)
    path = tmp_path / "state"
    secrets = Secrets({"NAME": "a-secret-of-some-length"})
    for offset in range(40, 70):
        path.write_bytes(b"." * offset + b"a-secret-of-some-length" + b"." * 100)
        assert found_in(path, secrets) == "NAME", offset
    path.write_bytes(b"." * 500)
    assert found_in(path, secrets) is None


def test_names_show_what_is_secret_and_the_configuration_decides(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.touch()
    environment = {
        "VENDOR_TOKEN": "0123456789",
        "DB_PASSWORD": "short",
        "SSH_KEY": str(file),
        "PLAIN": "0123456789",
        "PUBLIC_KEY": "0123456789",
        "ACCOUNT": "acme-12345",
        "API_URL": "https://api.example.org:8080/v1",
        "DATABASE_URL": "postgres://user:hunter2@db/x",
    }
    found = collect(
        environment,
        named=["PLAIN"],
        from_file=["ACCOUNT", "API_URL", "DATABASE_URL"],
        excluded=["PUBLIC_KEY"],
    )
    assert set(found.values) == {"VENDOR_TOKEN", "PLAIN", "ACCOUNT", "DATABASE_URL"}


def test_short_and_common_values_are_no_secrets() -> None:
    values = ("1234567", "password", "changeme", "postgres", "  short  ")
    for value in values:
        assert not collect({"DB_PASSWORD": value, "X": f"redis://:{value}@h"}).needles, value


def _private_key(kind: str) -> str:
    options = {"rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ed25519": ["ED25519"],
               "ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}[kind]  # fmt: skip
    return subprocess.run(
        ["openssl", "genpkey", "-algorithm", *options], capture_output=True, check=True, text=True
    ).stdout


PW = "pa55-canary-w0rd"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DATABASE_URL", f"postgres://reader:{PW}@db.example.org:5432/x?sslmode=require", PW),
        ("REDIS_URL", f"redis://:{PW}@cache:6379/0", PW),
        ("HTTPS_PROXY", f"http://me:{PW}@proxy:3128", PW),
        ("PIP_INDEX_URL", f"https://__token__:{PW}@pypi.example.org/simple", PW),
        ("PIP_EXTRA_INDEX_URL", f"https://a:b@x.example https://c:{PW}@y.example", PW),
        ("ANY", f"amqp://u:{PW}@a:5672/,amqp://u:other-{PW}@b:5672/", PW),
        ("ANY", "mysql://u:p%40ss-canary%2F1@db/x", "p@ss-canary/1"),
        ("ANY", "mysql://u:slash/canary@db/x", "slash/canary"),
        ("ANY", f"https://{PW}@git.example.org/x.git", PW),
        ("ANY", f"https://{PW}:x-oauth-basic@git.example.org/x.git", PW),
        ("ANY", f"https://api.example.org/v1?workspace=1&api_key={PW}", PW),
        ("ANY", f"jdbc:postgresql://db/x?user=u&password={PW}", PW),
        ("ANY", f"jdbc:sqlserver://db;user=u;password={PW};encrypt=true", PW),
        ("ANY", f"host=db user=u password={PW} dbname=x", PW),
        ("ANY", f"Driver={{ODBC}};Server=db;Uid=u;Pwd={PW};", PW),
        ("ANY", f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={PW}==;Suffix=y", PW),
        ("ANY", f"u:{PW}@tcp(db.example.org:3306)/x", PW),
        ("JAVA_OPTS", f"-Xmx1g -Djavax.net.ssl.keyStorePassword={PW}", PW),
        ("ANY", f"Authorization: Bearer {PW}", PW),
        ("ANY", f"Basic {base64.b64encode(f'me:{PW}'.encode()).decode()}", PW),
        ("ANY", json.dumps({"type": "x", "nested": [{"client_secret": PW}]}), PW),
        ("ANY", base64.b64encode(json.dumps({"private": {"token": PW}}).encode()).decode(), PW),
        ("ANY", json.dumps({"url": f"https://me:{PW}@x.example"}), PW),
        ("MYSQL_PWD", f"{PW}\n", PW),
        ("MYSQL_PWD", f"{PW}\r\n", PW),
        ("ANY", "https://x.example/c?sv=1&sig=canary%2Bone%3D", "canary+one="),
    ],
)
def test_the_secret_part_of_a_variable_is_found_and_named(
    tmp_path: Path, name: str, value: str, secret: str
) -> None:
    path = tmp_path / "state"
    path.write_text(f'{{"a": "{secret}"}}')
    assert found_in(path, collect({name: value, "OTHER": "x"})) == name
    assert found_in(path, collect({name: value}, excluded=[name])) is None
    path.write_text('{"host": "db.example.org", "proxy": "proxy:3128", "api": "v1"}')
    assert found_in(path, collect({name: value})) is None


def _rewrapped(pem: str, width: int, newline: str) -> str:
    first, *body, last = pem.strip().split("\n")
    joined = "".join(body)
    lines = [joined[at : at + width] for at in range(0, len(joined), width)]
    return newline.join([first, *lines, last, ""])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_a_private_key_is_found_however_it_is_wrapped(tmp_path: Path, kind: str) -> None:
    pem = _private_key(kind)
    file = tmp_path / "account.json"
    file.write_text(json.dumps({"type": "service_account", "private_key": pem}))
    body = "".join(pem.strip().split("\n")[1:-1])
    environments = (
        {"X": pem},
        {"X": pem.replace("\n", "\\n")},
        {"X": pem.replace("\n", "\r\n")},
        {"X": json.dumps({"private_key": pem})},
        {"X": base64.b64encode(pem.encode()).decode()},
        {"GOOGLE_APPLICATION_CREDENTIALS": str(file)},
        {"GOOGLE_APPLICATION_CREDENTIALS": "account.json"},
        {"ANY_NAME": str(file)},
    )
    states = (
        pem,
        pem.replace("\n", "\r\n"),
        pem.replace("\n", "\\n"),
        pem.replace("\n", ""),
        _rewrapped(pem, 76, "\n"),
        json.dumps({"key": pem}),
        json.dumps(json.dumps({"key": pem})),
        body,
        base64.b64encode(pem.encode()).decode(),
    )
    path = tmp_path / "state"
    for environment in environments:
        secrets = collect(environment, root=tmp_path)
        for state in states:
            path.write_text(f"some {state} text")
            assert found_in(path, secrets) == next(iter(environment)), (environment, state)
        path.write_text(_public_key(pem))
        assert found_in(path, secrets) is None


def _public_key(pem: str) -> str:
    return subprocess.run(
        ["openssl", "pkey", "-pubout"], input=pem, capture_output=True, check=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("AWS_SHARED_CREDENTIALS_FILE", f"[default]\naws_secret_access_key = {PW}\n"),
        ("NETRC", f"machine x.example login me password {PW}\n"),
        ("PGPASSFILE", f"db:5432:x:me:{PW}\n"),
        ("KUBECONFIG", f"users:\n- name: x\n  user:\n    token: {PW}\n"),
        ("DB_PASSWORD_FILE", f"{PW}\n"),
        ("PIP_CONFIG_FILE", f"[global]\nindex-url = https://me:{PW}@x.example/simple\n"),
        ("DOCKER_AUTH", json.dumps({"auths": {"x": {
            "auth": base64.b64encode(f"me:{PW}".encode()).decode()}}})),
    ],
)  # fmt: skip
def test_secrets_in_files_that_variables_name(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    state = tmp_path / "state"
    state.write_text(f"x {PW} y")
    secrets = collect({name: str(file)})
    assert found_in(state, secrets) == name
    assert secrets.within(PW)
    assert "file that" in secrets.within(PW).what  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PGPASSFILE", f"db:5432:x:me:{PW}\r\n".encode()),
        ("DB_PASSWORD_FILE", f"\ufffd{PW}\n".encode()),
        ("ANY_NAME", b"# " + "é".encode() * 40_000 + f"\npassword: {PW}\n".encode()),
    ],
    ids=["the line ends of Windows", "a replacement character", "more bytes than characters"],
)
def test_secrets_in_unusual_text_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")  # as Kubernetes mounts them
    state = tmp_path / "state"
    state.write_text(f"x \ufffd{PW} y")
    assert found_in(state, collect({name: str(tmp_path / "link")})) == name


def test_what_ci_systems_set_is_not_secret(tmp_path: Path) -> None:
    """Words that stand in an event, in a script or in a list are in many states, too."""
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"license": {"key": "apache-2.0"}, "keys_url": "https://x/keys"}))
    script = tmp_path / "script.sh"
    script.write_text('password="$1"; token=$(cat /run/token); read -p "token authentication: " x')
    environment = {
        "GITHUB_EVENT_PATH": str(event),
        "BASH_ENV": str(script),
        "LS_COLORS": "rs=0:di=01;34:*.key=01;31:*.pem=01;31",
        "npm_config_user_agent": "npm/10.1 node/v20 linux x64 workspaces/false",
        "KEYBOARD_LAYOUT": "us-international",
        "API_URL": "https://api.example.org:8443/v1?workspace=main-workspace#overview",
        "IMAGE": "registry.example.org/shop:20261129@sha256:0123456789abcdef",
        "KAFKA": "broker-1.example.org:9092,broker-2.example.org:9092",
        "SSH_AUTH_SOCK": "/run/user/1000/agent",
        "OAUTH_TOKEN_URL": "https://login.example.org/oauth2/token",
    }
    found = collect(environment)
    assert not found.values
    assert not found.parts


def test_only_small_regular_text_files_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"token=" + PW.encode() + b"\0")
    (tmp_path / "large").write_text(f"token={PW}\n" * 10_000)
    names = {name: str(tmp_path / name) for name in ("fifo", "binary", "large", "missing", "")}
    names["NUL"] = "a\0b"
    assert not collect(names).parts


# --- states -------------------------------------------------------------------------------------


def judged(
    directory: Path, environment: dict[str, str], options: KeyOptions | None = None
) -> BundlerError | None:
    component = Component("Vendor[x]", "LOCAL_FILESYSTEM", "vendor.Component")
    try:
        check(
            component,
            directory,
            options or KeyOptions(),
            secrets=collect(environment),
            baseline=None,
        )
    except BundlerError as error:
        return error
    return None


def state_with(directory: Path, **files: str) -> Path:
    directory.mkdir()
    (directory / "state").write_text("[1]")
    for name, content in files.items():
        (directory / name).write_text(content)
    return directory


def test_a_secret_in_the_name_of_a_file_is_refused(tmp_path: Path) -> None:
    error = judged(state_with(tmp_path / "x", **{f"of-{PW}": "y"}), {"VENDOR_PASS": PW})
    assert isinstance(error, CredentialsRefused)
    assert "VENDOR_PASS" in error.what
    assert PW not in error.what + error.hint


def test_the_refusal_names_key_file_and_variable_but_not_the_value(tmp_path: Path) -> None:
    error = judged(state_with(tmp_path / "x", more=f"1\n2\n3 {PW}"), {"X_URL": f"a://b:{PW}@c"})
    assert isinstance(error, CredentialsRefused)
    assert error.what == "Vendor[x]: more contains the password in X_URL."
    assert 'not-secrets = ["X_URL"]' in error.hint


def test_the_staging_path_is_still_bad_data(tmp_path: Path) -> None:
    assert isinstance(
        judged(state_with(tmp_path / "x", more=f"{tmp_path / 'x'}/more"), {}), BadData
    )


GITHUB = "ghp_" + "a1B2c3D4e5F6" * 3
JWT = ".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"canary"}', b"signature-bytes")
)
MATERIAL = {
    "aws": "key = AKIA" + "Q3EGRZ7T" * 2,
    "azure": "AccountKey=" + "a1B2" * 21 + "ab==",
    "github": f'{{"token": "{GITHUB}"}}',
    "github-fine": "github_pat_" + "a" * 22 + "_" + "b" * 59,
    "gitlab": "glpat-" + "a1B2c3D4e5" * 2,
    "google": "AIza" + "a1B2c3D" * 5,
    "jwt": JWT,
    "slack": "xoxb-123456789-123456789-abcdefghij",
    "dbt Cloud": "dbtc_" + "a1B2c3D4e5" * 4,
    "stripe": "sk_live_" + "a1B2c3" * 4,
    "databricks": "dapi" + "0123456789abcdef" * 2,
}


@pytest.mark.parametrize("name", MATERIAL)
def test_tokens_of_known_shapes_are_refused_by_file_and_line(tmp_path: Path, name: str) -> None:
    directory = state_with(tmp_path / "x", **{"more.txt": f"\n\n{MATERIAL[name]}\n"})
    error = judged(directory, {})
    assert isinstance(error, ConfigurationError)
    assert error.what.startswith("Vendor[x]: more.txt:3 contains ")
    assert not {word for word in MATERIAL[name].split() if len(word) > 12} & set(error.what.split())
    assert judged(directory, {}, KeyOptions(allow_key_material=("more.txt",))) is None
    assert judged(directory, {}, KeyOptions(allow_key_material=("other.txt",))) is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_private_keys_are_refused_in_every_wrapping(tmp_path: Path, kind: str) -> None:
    pem = _private_key(kind)
    body = "".join(pem.strip().split("\n")[1:-1])
    encrypted = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:canary-pass"],
        input=pem, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    states: dict[str, str | bytes] = {
        "pem": pem,
        "crlf": pem.replace("\n", "\r\n"),
        "json": json.dumps({"type": "service_account", "private_key": pem}),
        "json in json": json.dumps(json.dumps({"private_key": pem})),
        "one line": pem.replace("\n", "\\n"),
        "encrypted": encrypted,
        "base64": base64.b64encode(pem.encode()),
        "utf-16": pem.encode("utf-16"),
        "der": base64.b64decode(body),
        "bare": json.dumps({"key": body}),
        "far": b"x" * 3_000_000 + pem.encode(),
    }
    for number, (name, state) in enumerate(states.items()):
        directory = state_with(tmp_path / str(number))
        raw = state.encode() if isinstance(state, str) else state
        (directory / "state").write_bytes(raw)
        error = judged(directory, {})
        assert isinstance(error, ConfigurationError), name
        assert "private key" in error.what
    container = state_with(tmp_path / "container", **{"trust.p12": "x"})
    assert "trust.p12 contains a private key" in str(judged(container, {}))


def test_what_only_mentions_key_material_is_not_key_material(tmp_path: Path) -> None:
    certificate = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null",
         "-subj", "/CN=x"], capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    text = (
        "Paste the key, beginning with -----BEGIN PRIVATE KEY-----, here.\n"
        '{"e": ["-----BEGIN RSA PRIVATE KEY-----\\nMIIE...\\n-----END RSA PRIVATE KEY-----"]}'
        "AKIAIOSFODNN7EXAMPLE ghp_short eyJhbGciOiJub25lIn0 sk_live_ AccountKey=<key> SG. xoxb-"
        f"{certificate}{json.dumps({'certificate': certificate})}"
        f"{base64.b64encode(certificate.encode()).decode()}"
    )
    assert judged(state_with(tmp_path / "x", more=text), {}) is None


def test_a_secret_that_begins_like_a_token_is_still_the_variables(tmp_path: Path) -> None:
    error = judged(state_with(tmp_path / "x", more=GITHUB), {"GITHUB_PAT": GITHUB})
    assert isinstance(error, CredentialsRefused)
    allowed = KeyOptions(allow_key_material=("more",))
    assert isinstance(judged(tmp_path / "x", {"GITHUB_PAT": GITHUB}, allowed), CredentialsRefused)


# --- texts --------------------------------------------------------------------------------------


def test_urls_lose_their_user_info_and_their_query() -> None:
    text = "GET https://me:pass@example.org/path?token=x failed, see http://a/b?c"
    assert Secrets({}).redact(text) == "GET https://example.org/path failed, see http://a/b"


@pytest.mark.parametrize("name", MATERIAL)
def test_a_text_loses_tokens_of_known_shapes(name: str) -> None:
    """A token may be in the code, and in no variable; a client quotes the answer that quotes it."""
    shown = Secrets({}).redact(f"failed: body='{MATERIAL[name]}' (404)")
    token = max(MATERIAL[name].split(), key=len).strip('"}')
    assert token not in shown
    assert shown.startswith("failed: body='")
    assert shown.endswith("' (404)")


def test_control_characters_become_visible() -> None:
    assert neutralise("a\x1b[31mb\r\u202ec\nd") == "a\\x1b[31mb\\r\\u202ec\nd"
