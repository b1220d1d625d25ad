"""The way to a host: directly or by the proxy that the environment names, with its certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from bundler.errors import ConfigurationError

if TYPE_CHECKING:
    import urllib3

# Where docker and podman look for a registry's own CA.
_CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def pool_for(address: str) -> urllib3.PoolManager:
    """Raises `ConfigurationError` for a proxy's address that is none."""
    import urllib3

    parts = urlsplit(address)
    context = _context(parts.netloc) if parts.scheme == "https" else None
    proxy = proxy_of(address)
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context)
    found = urlsplit(proxy)
    headers = {}
    if found.username:
        user, password = unquote(found.username), unquote(found.password or "")
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
    try:
        bare = f"{found.scheme}://{found.hostname}:{found.port or 80}"
        return urllib3.ProxyManager(bare, proxy_headers=headers, ssl_context=context)
    except (ValueError, urllib3.exceptions.HTTPError):  # its text may hold the password
        raise ConfigurationError(f"The proxy for {parts.netloc} has no usable address.") from None


def proxy_of(address: str) -> str | None:
    """The address of the proxy by which the environment sends this request."""
    parts = urlsplit(address)
    if is_loopback(parts.hostname or ""):
        return None
    if proxy_bypass(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if found and "://" not in found:
        return f"http://{found}"
    return found or None


def is_loopback(name: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    return name in ("localhost", "::1") or name.startswith("127.")


def _context(host: str) -> ssl.SSLContext:
    """What this machine trusts (``SSL_CERT_FILE`` included), and the registry's own CA."""
    context = ssl.create_default_context()
    for folder in _CERTIFICATES:
        for path in sorted(Path(folder, host).glob("*.crt")):
            try:
                context.load_verify_locations(path)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigurationError(f"{path} is no certificate that can be read.") from error
    return context
