"""How a state layer changes an image's configuration and manifest: values in, values out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LABEL_BASE,
    LABEL_LAYER,
    LABEL_PLACES,
    OCI_LAYER,
    Json,
    claims_of,
    diff_ids,
    encode_places,
    files_of,
    labels,
    replaces,
)
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import ConfigurationError
from bundler.state.artifact import LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.manifest import Claim, RunRecord, canonical, encode_claims

# Overlay file systems support 127 layers, and the engine needs some of them.
MAX_LAYERS = 125
# Registries accept manifests of up to 4 MiB, some fewer; a configuration may have megabytes.
_MAX_ANNOTATION = 256 * 1024


def without_last_layer(config: Mapping[str, Any]) -> Json:
    """The configuration without the topmost layer and its line of history."""
    changed = copy.deepcopy(dict(config))
    changed["rootfs"]["diff_ids"].pop()
    history = changed.get("history") or []
    for position in range(len(history) - 1, -1, -1):
        if not history[position].get("empty_layer"):
            del history[position]
            break
    return changed


def with_states(
    config: Mapping[str, Any], layer: Layer, written: Written, record: RunRecord, *, created: str
) -> Json:
    """The configuration with the layer on top, its line of history and its labels.

    Our own topmost layer is replaced, see `replaces`. record: with the states' places. created: RFC
    3339; the time of the image.
    """
    replaced = replaces(config, layer)
    changed = without_last_layer(config) if replaced else copy.deepcopy(dict(config))
    below = diff_ids(changed)
    if len(below) >= MAX_LAYERS:
        raise ConfigurationError(
            f"The image has {len(below)} layers; engines support {MAX_LAYERS}.",
            hint="Combine RUN lines in the Dockerfile.",
        )
    places = {item.bundle.place: item.path for item in layer.placed}
    claims = _new_claims(layer, () if replaced else claims_of(labels(config)) or ())
    diff_id = f"sha256:{written.diff_id}"
    files = files_of(changed, below)
    changed["rootfs"]["diff_ids"].append(diff_id)
    section = changed["config"] = changed.get("config") or {}
    # A revision that the image sets itself stays: its author knows better.
    section["Labels"] = {
        **code_names(record),
        **(section.get("Labels") or {}),
        LABEL_BASE: files,
        LABEL_LAYER: diff_id,
        LABEL_PLACES: encode_places(layer),
        LABEL_RUN_RECORD: canonical(record.moved(places)).decode(),
        LABEL_STATES: encode_claims(claims).decode(),
    }
    if isinstance(changed.get("history"), list):
        changed["history"].append(_history(claims, created))
    changed["created"] = created
    return changed


def _new_claims(layer: Layer, before: Sequence[Claim]) -> list[Claim]:
    """The claims of an image with this layer on top; claims about other places stay."""
    new = [item.bundle.manifest.claim(item.path) for item in layer.placed]
    gone = {*layer.moved_from, *(claim.path for claim in new)}
    return [*(claim for claim in before if claim.path not in gone), *new]


def _history(claims: Sequence[Claim], created: str) -> Json:
    what = ", ".join(f"{claim.path} {claim.content_digest[:12]}" for claim in claims)
    return {"created": created, "created_by": f"state-bundler embed {what}", "comment": "state"}


def annotations_for(config: Mapping[str, Any], record: RunRecord) -> dict[str, str]:
    """The labels' content as annotations of a manifest, readable in a registry without the
    configuration.

    What would make the manifest too large for a registry is only in the label.
    """
    found = {name: labels(config)[name] for name in (LABEL_RUN_RECORD, LABEL_STATES)}
    short = {name: text for name, text in found.items() if len(text) <= _MAX_ANNOTATION}
    return {**code_names(record), **short}


def code_names(record: RunRecord) -> dict[str, str]:
    """The record's data about the code, under OCI's names."""
    # https://github.com/opencontainers/image-spec/blob/main/annotations.md
    commit, remote = record.build.commit, record.build.remote
    names = {"org.opencontainers.image.revision": commit} if commit else {}
    if remote and "://" in remote:  # OCI requires a URL, which ssh's short form is not
        names["org.opencontainers.image.source"] = remote
    return names


def packing_of(layer_types: Sequence[str]) -> Compression:
    """The compression of a new layer: that of the topmost one; gzip if there is none."""
    last = layer_types[-1] if layer_types else "gzip"
    if last.endswith("zstd"):
        return "zstd"
    return "gzip" if last.endswith("gzip") else "none"


def layer_media_type(manifest_type: str, packing: Compression) -> str:
    """Docker's schema 2 has no type for zstd: the OCI one is used."""
    if manifest_type == DOCKER_MANIFEST and packing != "zstd":
        return DOCKER_LAYER + (".gzip" if packing == "gzip" else "")
    return OCI_LAYER + ("" if packing == "none" else f"+{packing}")


def empty_config(architecture: str) -> Json:
    """The configuration of an empty image."""
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {"WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }
