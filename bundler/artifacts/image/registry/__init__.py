"""Images in registries, without any engine: read, verified, given state, and only then a tag.

A registry client as far as state needs it. To push what was made elsewhere::

    registry.publish(layout, entry, [registry.parse("ghcr.io/acme/shop:1.4")])

and to put state on an image in a registry, by its digest::

    with registry.opened("ghcr.io/acme/shop:1.4", listener) as (target, reference):
        found = registry.source(reference.at(digest), target.connection)
        with RegistryDestination(target, (reference,), (found,)).embed(request) as made:
            verify(made)

Of the libraries for this, oras-py set no artifact type and wrote no fallback tag, and the Docker
SDK needs an engine; so it is urllib3 and the specification.
"""

from bundler.artifacts.image.registry.connection import Connections
from bundler.artifacts.image.registry.embedding import (
    KIND,
    RegistryDestination,
    open_image,
    opened,
    publish,
    source,
)
from bundler.artifacts.image.registry.store import RegistryStore
from bundler.artifacts.image.registry.target import RegistryTarget
from bundler.artifacts.reference import parse

__all__ = [
    "KIND",
    "Connections",
    "RegistryDestination",
    "RegistryStore",
    "RegistryTarget",
    "open_image",
    "opened",
    "parse",
    "publish",
    "source",
]
