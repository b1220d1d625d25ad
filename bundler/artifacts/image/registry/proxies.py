"""Connects to a host directly, or through the proxy in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from bundler.artifacts.image.registry.trust import context_for
from bundler.errors import ConfigurationError

if TYPE_CHECKING:
    import urllib3


# More are opened if more threads need them, but not kept.
_KEPT_CONNECTIONS = 8


def pool_for(address: str) -> urllib3.PoolManager:
    """Raises `ConfigurationError` for an invalid proxy address."""
    import urllib3

    parts = urlsplit(address)
    context = context_for(parts.netloc) if parts.scheme == "https" else None
    proxy = proxy_of(address)
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context, maxsize=_KEPT_CONNECTIONS)
    try:
        found = urllib3.util.parse_url(proxy)
        user, _, password = (found.auth or "").partition(":")
        login = unquote(f"{user}:{password}")
        headers = urllib3.make_headers(proxy_basic_auth=login) if user else {}
        return urllib3.ProxyManager(
            found._replace(auth=None, path=None).url,
            proxy_headers=headers,
            ssl_context=context,
            maxsize=_KEPT_CONNECTIONS,
        )
    except (ValueError, urllib3.exceptions.HTTPError):  # its text may contain the password
        raise ConfigurationError(
            f"The proxy for {parts.netloc} has an invalid address.",
            hint="Correct HTTPS_PROXY or HTTP_PROXY: http://HOST:PORT",
        ) from None


def proxy_of(address: str) -> str | None:
    """The address of the proxy for a request, according to the environment."""
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
    """Whether a host is this machine, judging by its name."""
    return name in ("localhost", "::1") or name.startswith("127.")
