"""An image's configuration and manifest, to read; `image_changes` adds a state layer.

An image is a *manifest* (which layers, packed how) and a *configuration* (what to run, which
layers by the digest of their unpacked bytes, and how each came about). A state layer adds one
layer, one line of history and three labels; everything else stays. The label `LABEL_LAYER` says
which layer is ours, so that the next one replaces it where it is still the topmost.

Formats: https://github.com/opencontainers/image-spec, and Docker's schema 2.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bundler.artifacts.image.layer import Layer, Owned, Placed
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.artifact import LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.manifest import (
    Claim,
    Manifest,
    RunRecord,
    decode_claims,
    decode_record,
    parse,
)

LABEL_LAYER = "io.state-bundler.layer"
LABEL_PLACES = "io.state-bundler.places"
LABEL_BASE = "io.state-bundler.base"

# What a state layer is recreated from, along with the manifests in it.
LABELS_OF_LAYER = (LABEL_STATES, LABEL_LAYER, LABEL_PLACES)

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)

# Which version of `image_import_path` determines places; another may have found others.
_RULE = 2
# The parts of an image's configuration that decide where its program imports from.
_STARTS = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")
# A short text can encode a million small objects; labels of many megabytes have fewer commas.
_MAX_ITEMS = 1_000_000

Json = dict[str, Any]


def dump(value: Mapping[str, Any]) -> bytes:
    """JSON as it is stored: keys in their order, no white space."""
    return msgspec.json.encode(value)


def digest_of(raw: bytes) -> str:
    """As images name a blob."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def entry_of(raw: bytes, media_type: str) -> Json:
    """The entry that points to a blob."""
    return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}


def load(raw: bytes, what: str) -> Json:
    """Parses a JSON object. Raises `VerificationFailed` for anything else, for JSON that would
    exhaust the memory, and for a repeated key: Go, in which engines are written, would merge the
    two."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MAX_ITEMS:
        raise VerificationFailed(f"{what} has more members than any image may have.")

    def refuse_twins(pairs: Sequence[tuple[str, object]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise VerificationFailed(f"{what} has the key {name[:80]!r} twice.")
            names.add(name)

    try:
        value = msgspec.json.decode(raw)
        json.loads(raw, object_pairs_hook=refuse_twins)
    except (ValueError, RecursionError) as error:
        raise VerificationFailed(f"{what} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise VerificationFailed(f"{what} is not a JSON object.")
    return value


def refuse_variants(value: Mapping[str, object], known: Collection[str], what: str) -> None:
    """Raises `VerificationFailed` for ``volumes`` instead of ``Volumes``: Go reads both."""
    folded = {name.casefold(): name for name in known}
    for name in value:
        if folded.get(name.casefold(), name) != name:
            raise VerificationFailed(
                f"{what} has the key {name!r}, which some programs read as "
                f"{folded[name.casefold()]!r}."
            )


class _Section(msgspec.Struct):
    """The parts of an image's configuration that say how its program runs."""

    # The format's own names.
    User: str | None = None
    WorkingDir: str | None = None
    Env: list[str] | None = None
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None
    Volumes: dict[str, dict[str, Any] | None] | None = None
    Labels: dict[str, str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str]
    type: str | None = None


class _History(msgspec.Struct):
    empty_layer: bool | None = None


class _ImageConfiguration(msgspec.Struct):
    rootfs: _RootFs
    architecture: str | None = None
    os: str | None = None
    config: _Section | None = None
    history: list[_History] | None = None


def check_configuration(config: Mapping[str, Any], what: str) -> None:
    """Raises `VerificationFailed` if a part that is read here has the wrong type."""
    try:
        msgspec.convert(config, _ImageConfiguration)
    except msgspec.ValidationError as error:
        raise VerificationFailed(f"{what} is not an image configuration: {error}.") from error
    refuse_variants(config, _ImageConfiguration.__struct_fields__, what)
    refuse_variants(config["rootfs"], _RootFs.__struct_fields__, what)
    refuse_variants(config.get("config") or {}, _Section.__struct_fields__, what)


def diff_ids(config: Mapping[str, Any]) -> list[str]:
    """The digests of the uncompressed layers, the lowest first."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise VerificationFailed("The image's configuration does not list its layers.")
    return list(found)


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the image's program runs. An engine's answer may have none."""
    return config.get("config") or {}


def labels(config: Mapping[str, Any]) -> dict[str, str]:
    found = _section(config).get("Labels") or {}
    return {str(name): str(value) for name, value in found.items()}


def claims_of(found: Mapping[str, str]) -> tuple[Claim, ...] | None:
    """The claims in an image's labels; None without the label.

    Raises `VerificationFailed` for a label that was altered.
    """
    text = found.get(LABEL_STATES)
    return None if text is None else decode_claims(text.encode(), f"the image ({LABEL_STATES})")


def run_record_of(found: Mapping[str, str]) -> RunRecord | None:
    """The run record in an image's labels; None without the label."""
    text = found.get(LABEL_RUN_RECORD)
    return None if text is None else decode_record(text.encode(), f"the label {LABEL_RUN_RECORD}")


def own_layer_is_last(config: Mapping[str, Any]) -> bool:
    """Whether the topmost layer is a state layer that we put there."""
    layers = diff_ids(config)
    return bool(layers) and labels(config).get(LABEL_LAYER) == layers[-1]


def replaces(config: Mapping[str, Any], layer: Layer) -> bool:
    """Whether a layer can replace the topmost one.

    It cannot if that layer also contains states which the new one does not bring.
    """
    if not own_layer_is_last(config):
        return False
    held = claims_of(labels(config)) or ()
    return {claim.path for claim in held} <= {item.path for item in layer.placed}


def is_untouched(config: Mapping[str, Any]) -> bool:
    """Whether nothing that decides where the state belongs has changed since it was embedded."""
    return own_layer_is_last(config) and labels(config).get(LABEL_BASE) == files_below(config)


def files_below(config: Mapping[str, Any]) -> str:
    """A digest of everything that decides where the state belongs: the other layers, and the
    start of the program."""
    layers = diff_ids(config)
    return files_of(config, layers[:-1] if own_layer_is_last(config) else layers)


def files_of(config: Mapping[str, Any], layers: Sequence[str]) -> str:
    start = {name: _section(config).get(name) or None for name in _STARTS}
    return digest_of(dump({"layers": layers, **start}))


def volumes_of(config: Mapping[str, Any]) -> list[str]:
    """The VOLUMEs that an image declares."""
    return sorted(_section(config).get("Volumes") or ())


def hides(volume: str, path: str, manifest: Manifest) -> bool:
    """Whether a volume would hide part of a state directory at run time.

    volume: an absolute path without links. A volume below the directory may only contain what is no
    state.
    """
    if f"{path}/".startswith(f"{volume.rstrip('/')}/"):
        return True
    below = volume.removeprefix(f"{path}/")
    return below != volume and any(
        f"{file}/".startswith(f"{below}/") for file in (MANIFEST_NAME, *manifest.files)
    )


def hidden_states(
    config: Mapping[str, Any],
    found: Mapping[str, Manifest],
    resolve: Callable[[str], str | None],
) -> Iterator[str]:
    """The states that the image's volumes would hide at run time, as messages.

    found: the manifests by their directories. resolve: follows the links in a path of the image.
    """
    for volume in volumes_of(config):
        real = resolved_volume(volume, resolve)
        for path, manifest in found.items():
            if hides(real, path, manifest):
                yield f"The image declares VOLUME {volume}, which hides the state at {path}."


def refuse_volumes(
    config: Mapping[str, Any],
    placed: Sequence[Placed],
    resolve: Callable[[str], str | None],
) -> None:
    """Raises `ConfigurationError` if there are `hidden_states`."""
    found = {item.path: item.bundle.manifest for item in placed}
    for problem in hidden_states(config, found, resolve):
        raise ConfigurationError(
            problem,
            hint="Remove that line from the Dockerfile, name a narrower directory in it, or "
            "install the project elsewhere.",
        )


def resolved_volume(volume: str, resolve: Callable[[str], str | None]) -> str:
    """The path at which an engine mounts a volume: links in it are followed as far as they lead."""
    path = posixpath.normpath(f"/{volume.lstrip('/')}")
    rest = ""
    while (real := resolve(path)) is None and path != "/":
        path, name = posixpath.split(path)
        rest = posixpath.join(name, rest) if rest else name
    return posixpath.join(real or path, rest).rstrip("/") or "/"


def annotation_problems(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Where a manifest's annotations contradict the labels about the states."""
    found = manifest.get("annotations") or {}
    for name in (LABEL_STATES, LABEL_RUN_RECORD):
        if name in found and found[name] != labels(config).get(name):
            yield f"The annotation {name} differs from the label of that name."


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a bundle was placed, and what its parents were like."""

    place: str
    path: str
    parents: tuple[Owned, ...]


class PlacesOfUser(msgspec.Struct, frozen=True, omit_defaults=True):
    """user: the number of the image's. chosen: see `Layer`. rule: by which the
    places were found."""

    user: int
    places: tuple[_Place, ...]
    chosen: bool = False
    rule: int = 1


def encode_places(layer: Layer) -> str:
    places = [_Place(item.bundle.place, item.path, item.parents) for item in layer.placed]
    places.sort(key=lambda item: item.path)
    found = PlacesOfUser(layer.user, tuple(places), layer.chosen, _RULE)
    return msgspec.json.encode(found).decode()


def _places(config: Mapping[str, Any]) -> PlacesOfUser | None:
    text = labels(config).get(LABEL_PLACES)
    try:
        return None if text is None else msgspec.json.decode(text, type=PlacesOfUser)
    except (msgspec.DecodeError, UnicodeError):
        return None


def import_paths(config: Mapping[str, Any]) -> dict[str, str]:
    """The path of each state directory in the image, relative to the root it is imported from."""
    found = _places(config)
    return {item.path: item.place for item in found.places} if found else {}


def untouched_places(config: Mapping[str, Any]) -> PlacesOfUser | None:
    """Where the states are, if nothing that decides that has changed since they were embedded."""
    return _places(config) if is_untouched(config) else None


def moved_from(
    config: Mapping[str, Any], placed: Sequence[Placed], resolve: Callable[[str], str | None]
) -> tuple[str, ...]:
    """The earlier paths of states whose code was moved since: nothing is there any more."""
    now = {item.bundle.place: item.path for item in placed}
    known = import_paths(config).items()
    return tuple(it for it, place in known if now.get(place, it) != it != resolve(it))


def last_layer_holds(config: Mapping[str, Any], paths: Sequence[str]) -> bool:
    """Whether the topmost layer is ours and, by its label, contains all these state directories."""
    return bool(paths) and own_layer_is_last(config) and import_paths(config).keys() == set(paths)


def remembered(
    config: Mapping[str, Any], bundles: Sequence[Bundle], *, own: bool = True
) -> Layer | None:
    """The layer for these bundles in an image that differs from this one only in our layer.

    The places and the properties of their parents were determined for the layer that the image has.
    own: whether it is the same image. If not, places count only if this version determined them.
    None if that layer did not contain all of the bundles, or the label does not say.
    """
    found = _places(config)
    if found is None or not own_layer_is_last(config):
        return None
    if not own and (found.chosen or found.rule != _RULE):
        return None
    known = {item.place: item for item in found.places}
    try:
        items = [(bundle, known[bundle.place]) for bundle in bundles]
        placed = tuple(Placed(bundle, item.path, item.parents) for bundle, item in items)
    except (KeyError, ConfigurationError):
        return None
    return Layer(placed, user=found.user, chosen=found.chosen)


def recreated(config: Mapping[str, Any], manifests: Callable[[str], bytes | None]) -> Layer | None:
    """The topmost layer, made from the manifests in it, which are returned by their directories.

    None if one is missing, or the image does not say where its states are.
    """
    paths = import_paths(config)
    bundles = [
        Bundle(Path(path), parse(raw, f"{path}/{MANIFEST_NAME}"), place)
        for path, place in paths.items()
        if (raw := manifests(path)) is not None
    ]
    return remembered(config, bundles) if len(bundles) == len(paths) else None


# Before threads do it: see `bundler.state.manifest`.
for _model in (_ImageConfiguration, PlacesOfUser):
    msgspec.json.Decoder(_model)
