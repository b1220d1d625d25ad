"""Images in registries, without any engine: read, verified, given state, and only then a tag.

A registry client as far as state needs it. To push what was made elsewhere::

    with registry.opened("ghcr.io/acme/shop:1.4", listener) as (target, reference):
        pushed = registry.push(target, layout, entry)      # blobs and manifests, by digest
        pushed.name(reference.tag)                         # the tag, last

and to put state on an image that lies there, by its digest::

        found = registry.source(reference.at(digest), target.connection)
        pushed = registry.embed(target, [found], bundles, record, check=…)
        pushed.name(reference.tag)

Of the libraries for this, oras-py set no artifact type and wrote no fallback tag, and the Docker
SDK needs an engine; so it is urllib3 and the specification.
"""

from bundler.artifacts.image.add_layer import Source
from bundler.artifacts.image.reference import Reference, parse
from bundler.artifacts.image.registry import referrers
from bundler.artifacts.image.registry.connection import NotFound, Transient
from bundler.artifacts.image.registry.embedding import (
    KIND,
    Pushed,
    embed,
    open_image,
    opened,
    push,
    source,
)
from bundler.artifacts.image.registry.store import RegistryStore
from bundler.artifacts.image.registry.target import RegistryTarget

__all__ = [
    "KIND",
    "NotFound",
    "Pushed",
    "Reference",
    "RegistryStore",
    "RegistryTarget",
    "Source",
    "Transient",
    "embed",
    "open_image",
    "opened",
    "parse",
    "push",
    "referrers",
    "source",
]
