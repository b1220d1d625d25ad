"""Files with credentials, recognised by name: no artifact may contain one unless it is named.

A file with only certificates or public keys is none of them, nor is a template of settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPLATES = (".example", ".sample", ".template", ".tmpl", ".dist", ".defaults")
# `.env`, `.env.production`, `.env-local`, `.env~`, `.envrc` and the folder `.envs`, not `.envoy`.
_SETTINGS = re.compile(r"\.env(?:s|rc)?(?![a-z0-9])")
_NAMES = frozenset(
    {".netrc", "_netrc", ".pypirc", ".npmrc", ".yarnrc.yml", ".git-credentials", ".dockercfg"}
    | {".pgpass", ".my.cnf", ".mylogin.cnf", ".vault-token", ".htpasswd", ".boto", ".s3cfg"}
    | {".databrickscfg", ".terraformrc", ".bigqueryrc", "kubeconfig", "credentials.json"}
    | {"application_default_credentials.json", "terraform.tfstate", ".aws", ".ssh", ".gnupg"}
    | {".kube", ".azure", ".gcloud", ".snowsql", ".snowflake", ".databricks"}
)
_ENDINGS = (".p12", ".pfx", ".jks", ".keystore", ".ppk", ".kdbx", ".kubeconfig", ".tfstate.backup")
_PATTERNS = re.compile(
    r"id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?|kubeconfig\.ya?ml|client_secret.*\.json"
    r"|.*service[-_ ]?account.*\.json|.*-credentials\.json|gcp[-_]?key.*\.json"
)
_PATHS = (
    *(".docker/config.json", ".config/gcloud", ".streamlit/secrets.toml"),
    *(".cargo/credentials", ".cargo/credentials.toml"),
)
# Their contents decide: many are public.
BY_CONTENT = (".pem", ".key")
_MOST_BYTES = 16 * 1024 * 1024
# Google names a service account's key after its project.
_KEY_FILE = (".json", 512, 8 * 1024)
_PRIVATE = b"PRIVATE KEY-----"
# The beginnings of PEM and PGP keys, and of DER keys: a certificate has no version there.
_SURELY_PRIVATE = re.compile(
    rb"PRIVATE KEY(?: BLOCK)?-----|\A0(?:\x82..|\x81.|[\0-\x7f])\x02\x01[\0\1]", re.DOTALL
)


def has_credentials_name(path: str) -> bool:
    """Whether a file or folder of this name holds credentials. path: relative, with slashes."""
    lower = path.lower()
    name = lower.rpartition("/")[2]
    if name.endswith(_TEMPLATES):
        return False
    return (
        name in _NAMES
        or name.endswith((*_ENDINGS, *BY_CONTENT))
        or _SETTINGS.match(name) is not None
        or _PATTERNS.fullmatch(name) is not None
        or any(f"/{lower}".endswith(f"/{known}") for known in _PATHS)
    )


def holds_credentials(path: str, file: str | os.PathLike[str], *, certain: bool = False) -> bool:
    """Whether a file or folder contains credentials; `file` is its path on disk."""
    return decide(path, lambda: open(file, "rb", opener=_opened), certain=certain)


def decide(path: str, opened: Callable[[], BinaryIO], *, certain: bool = False) -> bool:
    """The same for a file that `opened` opens, if its name does not decide.

    A file that cannot be read, or is too long, is judged by its name alone. certain: whether the
    contents have to be a private key, and not only look like a file that has one.
    """
    by_name = has_credentials_name(path)
    by_content = path.lower().endswith(BY_CONTENT)
    ending, least, most = _KEY_FILE
    if not by_content and (by_name or not path.lower().endswith(ending)):
        return by_name
    try:
        with opened() as stream:
            content = stream.read(_MOST_BYTES if by_content else most + 1)
    except IsADirectoryError:
        return by_name and not (certain and by_content)
    except OSError:
        return by_name
    if certain and not _SURELY_PRIVATE.search(content):
        return False
    if by_content:
        return certain or len(content) == _MOST_BYTES or is_private(content)
    return least <= len(content) <= most and b'"private_key"' in content


def below(folder: Path) -> Iterator[str]:
    """The files and folders that certainly contain credentials, and ``.git``, relative to a
    folder."""
    for place, folders, files in os.walk(folder):
        for names, is_folder in ((folders, True), (files, False)):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(place, name), folder)
                if name == ".git" or holds_credentials(path, folder / path, certain=True):
                    yield path
                    if is_folder:
                        folders.remove(name)


def is_private(content: bytes) -> bool:
    """Whether a key file contains a private key, or anything but public PEM blocks."""
    return _PRIVATE in content or b"-----BEGIN " not in content


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO has no writer
