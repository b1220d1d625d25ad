"""Manifests in a registry that refer to an image as their *subject*: signatures and the like.

A registry that supports referrers lists them itself. Otherwise the list is an index under the tag
``sha256-<hexadecimal>`` of the subject, which every client that adds one updates. See
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers.
"""

from __future__ import annotations

from collections.abc import Iterator

from bundler.artifacts.image.blobs import Descriptor, descriptors, read_json, read_small
from bundler.artifacts.image.image import OCI_INDEX, OCI_MANIFEST, Json, dump, entry_of, load
from bundler.artifacts.image.registry.connection import RegistryRequest
from bundler.artifacts.image.registry.store import MAX_MANIFEST_BYTES, RegistryStore, read_at_most
from bundler.artifacts.image.registry.target import RegistryTarget
from bundler.errors import VerificationFailed

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_SUBJECT_HEADER = "OCI-Subject"
# More of one kind than anybody has; each takes two requests to read.
_MAX_REFERRERS = 64
_MAX_PAGES = 16


def attach(
    target: RegistryTarget,
    subject: Descriptor,
    artifact_type: str,
    content: bytes,
    media_type: str,
) -> str:
    """Stores content that refers to an image, and returns the digest of its manifest."""
    empty, _ = target.send_bytes(_EMPTY)
    blob, size = target.send_bytes(content)
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": {"mediaType": _EMPTY_TYPE, "digest": empty, "size": len(_EMPTY)},
            "layers": [{"mediaType": media_type, "digest": blob, "size": size}],
            "subject": {
                "mediaType": subject.media_type,
                "digest": subject.digest,
                "size": subject.size,
            },
        }
    )
    entry = entry_of(raw, OCI_MANIFEST)
    headers = target.put_manifest(raw, OCI_MANIFEST, entry["digest"])
    if _SUBJECT_HEADER.lower() not in {name.lower() for name in headers}:
        _list_by_tag(target, subject, {**entry, "artifactType": artifact_type})
    return str(entry["digest"])


def contents(
    store: RegistryStore, subject: Descriptor, artifact_type: str, limit: int
) -> Iterator[bytes]:
    """The referrers of one type. limit: in bytes; larger ones are ignored.

    Raises `VerificationFailed` if one is malformed.
    """
    listed = _listed(store, subject)
    found = [entry for entry in listed if entry.raw.get("artifactType") == artifact_type]
    for entry in found[-_MAX_REFERRERS:]:
        manifest = read_json(store, entry)
        named = manifest.get("subject")
        if not isinstance(named, dict) or named.get("digest") != subject.digest:
            raise VerificationFailed(f"{entry.digest} in {store.name} does not refer to the image.")
        layers = descriptors(manifest.get("layers"), entry.digest)
        if len(layers) != 1 or layers[0].size > limit:
            raise VerificationFailed(f"{entry.digest} in {store.name} is not a {artifact_type}.")
        yield read_small(store, layers[0])


def _listed(store: RegistryStore, subject: Descriptor) -> list[Descriptor]:
    """Every referrer in the registry's list or under the fallback tag, without repetitions."""
    found = {entry.digest: entry for entry in (*_of_api(store, subject), *_of_tag(store, subject))}
    return list(found.values())


def _of_api(store: RegistryStore, subject: Descriptor) -> list[Descriptor]:
    where: str | None = store.path("referrers", subject.digest)
    found: list[Descriptor] = []
    for _ in range(_MAX_PAGES):
        if where is None:
            break
        request = RegistryRequest("GET", where, store.scope, (200, 404), {"Accept": OCI_INDEX})
        with store.connection.send(request) as response:
            if response.status != 200:  # noqa: PLR2004  # HTTP's "OK"
                return found
            raw = read_at_most(response, MAX_MANIFEST_BYTES, f"{store.name}: referrers")
            where = _next(response.headers.get("Link"))
        index = load(raw, f"The referrers of {subject.digest}")
        found += descriptors(index.get("manifests"), f"The referrers of {subject.digest}")
    return found


def _next(link: str | None) -> str | None:
    """Parses ``</v2/…?last=x>; rel="next"`` (RFC 8288)."""
    target, _, parameters = (link or "").partition(";")
    if "next" not in parameters:
        return None
    return target.strip().removeprefix("<").removesuffix(">")


def _fallback_tag(subject: Descriptor) -> str:
    return subject.digest.replace(":", "-")


def _of_tag(store: RegistryStore, subject: Descriptor) -> list[Descriptor]:
    found = store.find(store.reference.tagged(_fallback_tag(subject)))
    if found is None:
        return []
    return descriptors(read_json(store, found).get("manifests"), _fallback_tag(subject))


def _list_by_tag(target: RegistryTarget, subject: Descriptor, entry: Json) -> None:
    kept = [item.raw for item in _of_tag(target, subject) if item.digest != entry["digest"]]
    changed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, entry]}
    target.put_manifest(dump(changed), OCI_INDEX, _fallback_tag(subject))
