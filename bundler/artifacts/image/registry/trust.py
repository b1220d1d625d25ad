"""Which certificates of registries are trusted: this machine's CAs and ``certs.d``.

A registry's own CA (any ``*.crt``) and a client certificate for it (``NAME.cert`` with
``NAME.key``) are looked up where docker and podman look, in the same order:
https://docs.docker.com/engine/security/certificates/, containers-certs.d(5).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from bundler.errors import BundlerError, ConfigurationError, ToolFailed
from bundler.system.home import home

_SYSTEM = ("/etc/docker/certs.d", "/etc/containers/certs.d")
# For engines without root, and Docker Desktop.
_OWN = (".config/docker/certs.d", ".config/containers/certs.d", ".docker/certs.d")
# OpenSSL's names: X509_V_ERR_*.
_NOT_YET, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64
_WRONG = {
    _NOT_YET: "has a certificate that is not valid yet",
    _EXPIRED: "has a certificate that has expired",
    _OTHER_HOST: "has a certificate for another host",
    _OTHER_ADDRESS: "has a certificate for another host",
}


def context_for(host: str) -> ssl.SSLContext:
    """This machine's trusted CAs (``SSL_CERT_FILE`` included), and the registry's own files.

    Raises `ConfigurationError` for a file that cannot be read.
    """
    context = ssl.create_default_context()
    folders = [*map(Path, _SYSTEM), *(home() / folder for folder in _OWN)]
    for folder in (folder / host for folder in folders):
        for path in sorted(folder.glob("*.crt")):
            try:
                context.load_verify_locations(path)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigurationError(
                    f"{path} is not a readable certificate.",
                    hint="Replace it with a certificate in PEM format, or remove it.",
                ) from error
        for path in sorted(folder.glob("*.cert")):
            key = path.with_suffix(".key")
            try:
                # An empty password: OpenSSL would prompt for that of an encrypted key.
                context.load_cert_chain(path, key, password=bytes)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"{path} and {key.name} are not a matching certificate and key.",
                    hint="Replace both with the client's certificate and its unencrypted key.",
                ) from error
    return context


def distrust(host: str, error: Exception) -> BundlerError:
    """The error message and hint for a TLS failure. error: urllib3's, around OpenSSL's."""
    cause = error.args[0] if error.args else None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return ToolFailed(
            f"A TLS connection to {host} is not possible.",
            hint="Does it use TLS on that port? Does it require a client certificate?",
        )
    wrong = _WRONG.get(cause.verify_code)
    if wrong is not None:
        return ToolFailed(f"{host} {wrong}.", hint="Its operator must fix the certificate.")
    return ToolFailed(
        f"The certificate of {host} is not trusted.",
        hint=f"Set SSL_CERT_FILE to the CA's file, or copy it to {_SYSTEM[0]}/{host}/ca.crt.",
    )
