"""A real registry with TLS, a login and a proxy before it: which certificate is trusted, and the
message if it is not.

Debian's registry has a certificate of an authority that nobody knows. A small proxy stands for the
world's names: it leads ``registry.test`` there, and any other name too.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from bundler.artifacts.image import registry
from bundler.errors import BundlerError, ConfigurationError, CredentialsRefused, ToolFailed
from tests.support import registries
from tests.support.bundles import make_bundle
from tests.support.engine import install
from tests.support.layouts import LayoutMaker
from tests.support.pushing import (  # noqa: F401  # a fixture for all
    STATES,
    alone,
    basic,
    embed,
    login,
    push_base,
    state_bundler,
    verdict_of,
)
from tests.support.registries import PASSWORD, USER

pytestmark = pytest.mark.engine

NAME = "registry.test"


@dataclass(frozen=True)
class Secured:
    """A registry behind TLS. ca: the file of its authority; mine: a certificate and its key."""

    host: str
    ca: Path
    mine: tuple[Path, Path]

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])


@contextmanager
def _secured(folder: Path, *, asks_back: bool = False) -> Iterator[Secured]:
    authority = trustme.CA()
    issued = {"server": authority.issue_cert("127.0.0.1", NAME), "mine": authority.issue_cert("me")}
    for name, certificate in issued.items():
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    files = {"certificate": folder / "server.pem", "key": folder / "server.key"}
    asked = {"clientcas": ca} if asks_back else {}
    with registries.distribution({**files, **asked}, login=not asks_back) as host:
        yield Secured(host, ca, (folder / "mine.pem", folder / "mine.key"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with _secured(tmp_path_factory.mktemp("tls")) as found:
        yield found


@pytest.fixture
def maker(tmp_path: Path) -> LayoutMaker:
    return LayoutMaker(tmp_path / "base")


def refusal(name: str) -> BundlerError:
    with pytest.raises(BundlerError) as caught:
        registry.open_image(name)
    return caught.value


def log_in(tmp_path: Path, host: str, password: str = PASSWORD) -> None:
    login(tmp_path / "docker" / "config.json", host, auth=basic(USER, password))


def in_certs_d(home: Path, folder: str, host: str, **files: Path) -> Path:
    """Puts files where docker and podman look for them: by name, with _ for the dot."""
    place = home / folder / host
    place.mkdir(parents=True)
    for name, path in files.items():
        (place / name.replace("_", ".")).write_bytes(path.read_bytes())
    return place


def test_an_unknown_authority_is_reported_with_where_it_belongs(secured: Secured) -> None:
    said = state_bundler("verify", f"docker://{secured.host}/shop:1", code=71)
    assert f"The certificate of {secured.host} is not trusted" in said
    assert "SSL_CERT_FILE" in said
    assert f"/etc/docker/certs.d/{secured.host}/ca.crt" in said


def test_by_ssl_cert_file_and_a_login_a_whole_round(
    secured: Secured, maker: LayoutMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.ca))
    assert "requires credentials" in refusal(f"{secured.host}/shop:1").what
    log_in(tmp_path, secured.host, "wrong-password")
    refused = refusal(f"{secured.host}/shop:1")
    assert isinstance(refused, CredentialsRefused)
    assert "wrong-password" not in refused.what + refused.hint

    log_in(tmp_path, secured.host)
    push_base(maker, f"{secured.host}/shop:1")
    bundle = make_bundle(tmp_path / "state", STATES)
    embed(f"{secured.host}/shop:2", bundle, f"{secured.host}/shop:1")
    said = state_bundler("verify", f"docker://{secured.host}/shop:2", "--format", "json")
    assert json.loads(said)["artifacts"][0]["problems"] == []
    # What docker login wrote, and the CA, serve other programs the same.
    argv = [install("skopeo"), "inspect", f"docker://{secured.host}/shop:2"]
    seen = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert seen["Digest"] == verdict_of(f"{secured.host}/shop:2").digest


@pytest.mark.parametrize(
    "folder", [".config/docker/certs.d", ".config/containers/certs.d", ".docker/certs.d"]
)
def test_by_the_folders_of_docker_and_podman(secured: Secured, tmp_path: Path, folder: str) -> None:
    place = in_certs_d(tmp_path / "home", folder, secured.host, ca_crt=secured.ca)
    assert isinstance(refusal(f"{secured.host}/shop:1"), CredentialsRefused)  # it is believed
    (place / "ca.crt").write_text("no certificate")
    broken = refusal(f"{secured.host}/shop:1")
    assert isinstance(broken, ConfigurationError)
    assert str(place / "ca.crt") in broken.what


def test_a_certificate_of_ours_is_shown_to_a_registry_that_asks(
    maker: LayoutMaker, tmp_path: Path
) -> None:
    (tmp_path / "tls").mkdir()
    with _secured(tmp_path / "tls", asks_back=True) as found:
        home, folder = tmp_path / "home", ".config/containers/certs.d"
        place = in_certs_d(home, folder, found.host, ca_crt=found.ca)
        without = refusal(f"{found.host}/shop:1")
        assert isinstance(without, ToolFailed)
        assert "a client certificate" in without.hint
        (place / "client.cert").write_bytes(found.mine[0].read_bytes())
        unmatched = refusal(f"{found.host}/shop:1")
        assert isinstance(unmatched, ConfigurationError)
        assert "client.key" in unmatched.what
        (place / "client.key").write_bytes(found.mine[1].read_bytes())
        pushed = push_base(maker, f"{found.host}/shop:1")
        with registry.open_image(f"{found.host}/shop:1") as image:
            assert image.digest == pushed


# --- by a proxy -----------------------------------------------------------------------------


@dataclass
class Proxy:
    """Leads every CONNECT to one port. wants: the header that it lets through; None: any."""

    port: int
    wants: str | None = None
    asked: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def _proxy(proxy: Proxy) -> Iterator[Proxy]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_CONNECT(self) -> None:  # http.server
            proxy.asked.append(self.path)
            if proxy.wants not in (None, self.headers.get("Proxy-Authorization")):
                self.send_error(407)
                return
            with socket.create_connection(("127.0.0.1", proxy.port)) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pump, args=(there, self.connection))
                back.start()
                _pump(self.connection, there)
                back.join()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    proxy.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_through_a_proxy_to_a_name(
    secured: Secured, maker: LayoutMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.ca))
    log_in(tmp_path, NAME)
    shown = f"Basic {basic('user', 'p@ss')}"
    with _proxy(Proxy(secured.port, shown)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        refused = refusal(f"{NAME}/shop:1")
        assert isinstance(refused, CredentialsRefused)
        assert "The proxy for registry.test requires" in refused.what
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@{proxy.address}")
        push_base(maker, f"{NAME}/proxied:1")
        embed(f"{NAME}/proxied:2", make_bundle(tmp_path / "state", STATES), f"{NAME}/proxied:1")
        assert verdict_of(f"{NAME}/proxied:2").all_problems == ()
        assert set(proxy.asked) == {f"{NAME}:443"}
        # The proxy leads another name there, too; its certificate is not for that one.
        other = refusal("other.test/proxied:2")
        assert other.what == "other.test has a certificate for another host."


@pytest.mark.parametrize("what", ["expired", "no TLS"])
def test_what_else_is_wrong_is_said_as_it_is(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    past = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    expired = authority.issue_cert(NAME, not_before=past, not_after=past.replace(year=2021))
    with _answering(expired if what == "expired" else None) as port, _proxy(Proxy(port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        said = refusal(f"{NAME}/shop:1")
    expected = "a certificate that has expired" if what == "expired" else "A TLS connection to"
    assert isinstance(said, ToolFailed)
    assert expected in said.what


@contextmanager
def _answering(certificate: trustme.LeafCert | None) -> Iterator[int]:
    """A server with a certificate, or without TLS."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # the handshake fails, as it should
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
