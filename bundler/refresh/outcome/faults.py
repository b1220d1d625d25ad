"""Network faults: how to recognise them in a chain of exceptions, and their messages."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import Literal

from bundler.errors import Unavailable
from bundler.refresh.outcome.exchanges import Link
from bundler.refresh.outcome.findings import PROXY_HINT, Cause

Fault = Literal[
    "dns",
    "refused",
    "reset",
    "closed",
    "timeout",
    "tls",
    "proxy",
    "cut",
    "unreachable",
    "no-http",
    "redirects",
]

# If there is no hint, the user is asked to check that the host is up and reachable.
FAULTS: dict[Fault, Cause] = {
    "dns": Cause(
        Unavailable,
        "the name {host} cannot be resolved",
        "yes",
        hint="Check the name {host} in the settings of the component, and this machine's DNS.",
    ),
    "refused": Cause(Unavailable, "{host} refused the connection", "yes"),
    "reset": Cause(Unavailable, "{host} reset the connection", "yes"),
    "closed": Cause(Unavailable, "{host} closed the connection before it answered", "yes"),
    "timeout": Cause(Unavailable, "{host} did not answer in time", "yes"),
    "unreachable": Cause(Unavailable, "{host} is unreachable", "yes"),
    "tls": Cause(
        Unavailable,
        "the TLS certificate of {host} was rejected",
        hint="Check the certificate of {host}, and the CAs that this machine trusts "
        "(SSL_CERT_FILE).",
    ),
    "proxy": Cause(
        Unavailable, "the proxy for {host} rejected the request", "yes", hint=PROXY_HINT
    ),
    "cut": Cause(
        Unavailable,
        "the response from {host} was cut off",
        "once",
        hint="Try again. If it happens again, contact the operator of {host}.",
    ),
    "no-http": Cause(
        Unavailable,
        "the response from {host} is not HTTP",
        "once",
        hint="Check the URL of the component: the port, http or https.",
    ),
    "redirects": Cause(
        Unavailable,
        "the redirects of {host} do not lead to a response",
        hint="Check the URL of the component: http or https, the host, a trailing slash.",
    ),
}
# Errno and names of exception classes, the most specific first.
_BY_ERRNO: dict[int, Fault] = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
}
PROXY_NAMES = frozenset({"ProxyError", "ClientHttpProxyError", "ClientProxyConnectionError"})
_BY_NAME: tuple[tuple[Fault, frozenset[str]], ...] = (
    ("dns", frozenset({"gaierror", "NameResolutionError", "ClientConnectorDNSError"})),
    ("tls", frozenset({"SSLCertVerificationError", "ClientConnectorCertificateError"})),
    ("cut", frozenset({"IncompleteRead", "ClientPayloadError", "ContentLengthError"})),
    ("cut", frozenset({"ChunkedEncodingError", "InvalidChunkLength", "TransferEncodingError"})),
    ("cut", frozenset({"DecodingError", "ContentDecodingError", "ContentEncodingError"})),
    ("closed", frozenset({"RemoteDisconnected", "ServerDisconnectedError", "SSLEOFError"})),
    ("refused", frozenset({"ConnectionRefusedError"})),
    ("reset", frozenset({"ConnectionResetError", "BrokenPipeError"})),
    ("no-http", frozenset({"BadStatusLine", "LineTooLong", "BadHttpMessage", "UnknownProtocol"})),
    ("timeout", frozenset({"TimeoutError", "TimeoutException", "Timeout", "ReadTimeoutError"})),
    ("timeout", frozenset({"ConnectTimeoutError", "ReadTimeout", "ConnectTimeout"})),
    ("proxy", PROXY_NAMES),
    ("redirects", frozenset({"TooManyRedirects"})),
    ("tls", frozenset({"SSLError", "ClientSSLError"})),
    ("timeout", frozenset({"CancelledError"})),
)
_MOST_TELLING = 6  # of these
_BY_TEXT: tuple[tuple[Fault, str], ...] = (
    ("tls", r"CERTIFICATE_VERIFY_FAILED"),
    ("closed", r"UNEXPECTED_EOF|(?i:without sending a(ny)? response|server disconnected)"),
    ("cut", r"without sending complete message body|incomplete chunked read"),
    ("no-http", r"illegal status line|illegal header line|Bad HTTP response"),
    ("dns", r"Name or service not known|Temporary failure in name resolution|getaddrinfo failed"),
    ("dns", r"nodename nor servname provided|No address associated with hostname"),
    ("refused", r"Connection refused"),
    ("redirects", r"too many redirects"),
)
# A TLS library's errors about a certificate, and their meaning.
CERTIFICATE = (
    ("certificate has expired", "it has expired"),
    ("certificate is not yet valid", "it is not valid yet"),
    ("Hostname mismatch", "it is for another host"),
    ("IP address mismatch", "it is for another host"),
    ("self-signed certificate", "it is self-signed"),
    ("self signed certificate", "it is self-signed"),
    ("unable to get local issuer", "its issuer is not trusted on this machine"),
)
PROXY_STATUS = re.compile(r"(?i)tunnel connection failed: (\d{3})\b")


def fault_of(chain: Sequence[Link]) -> Fault | None:
    """The kind of network fault that a chain of exceptions describes."""
    text = " ".join(link.text for link in chain)
    names = {name for link in chain for name in link.names}
    if PROXY_STATUS.search(text):
        return "proxy"
    for fault, known in _BY_NAME[:_MOST_TELLING]:
        if not known.isdisjoint(names):
            return fault
    for number in (link.errno for link in chain):
        if number in _BY_ERRNO:
            return _BY_ERRNO[number]
    for fault, pattern in _BY_TEXT:
        if re.search(pattern, text):
            return fault
    return next((fault for fault, known in _BY_NAME if not known.isdisjoint(names)), None)
