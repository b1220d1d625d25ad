"""Opens the object store that a URL names."""

from __future__ import annotations

from bundler.errors import ConfigurationError
from bundler.store.objects import SCHEMES, Objects, shown
from bundler.system.installed import installed


def open_objects(url: str, patience: float | None = None) -> Objects:
    """The bucket or folder at a URL: ``s3://bucket/prefix``, ``gs://…``, ``az://…``, ``file:///…``.

    patience: for how many seconds a bucket that does not answer is retried. Raises
    `ConfigurationError` for any other URL, or if the extra for it is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not rest.strip("/"):
        raise ConfigurationError(
            f"{shown(url)!r} is not a store.",
            hint="Use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or "
            "file:///a/folder.",
        )
    if scheme == "file":
        from bundler.store.folder import Folder

        return Folder.of_url(url)
    try:
        from bundler.store.remote import Bucket
    except ImportError:
        raise ConfigurationError(
            f"{shown(url).rstrip('/')} requires obstore, which is not installed.",
            hint=f"Install it: {installed().command('store')}",
        ) from None
    return Bucket(url) if patience is None else Bucket(url, patience)
