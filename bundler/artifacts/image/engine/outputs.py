"""Carries out the options for the result with the finished image."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from bundler.artifacts import reference
from bundler.artifacts.image.blobs import Descriptor, copy, images_of
from bundler.artifacts.image.engine.arguments import Arguments, fields_of, is_on
from bundler.artifacts.image.engine.connection import Engine
from bundler.artifacts.image.engine.full_image_transfer import publish_only, saved
from bundler.artifacts.image.layout import LayoutFolder, add_to_folder, pack
from bundler.artifacts.image.ociread import LoadedImage
from bundler.errors import ChildFailed, UsageError
from bundler.listener import Listener
from bundler.state.artifact import Artifact
from bundler.system import process
from bundler.system.atomic import io_errors, replaced_file, save

_CHUNK_BYTES = 1024 * 1024
# What docker takes for an image's ID, or refuses as ambiguous.
_DIGEST = re.compile(r"[0-9a-f]{64}|sha256(:.*)?")
_KINDS = ("docker", "image", "registry", "tar", "local", "oci")


@dataclass(frozen=True)
class ReadyImage:
    """A finished image with its state, which has no name until its build's block ends.

    arguments: with the names and files that it gets.
    """

    artifact: Artifact
    arguments: Arguments

    @property
    def image_id(self) -> str:
        """Its ID, or the digest of its manifest or index if it bypasses the engine."""
        return str(self.artifact.digest)

    @property
    def called(self) -> str | None:
        """Its names, or else its files."""
        files = [fields["dest"] for fields in self.arguments.results if "dest" in fields]
        return " ".join(self.arguments.names or files) or None


def check(arguments: Arguments) -> None:
    """Raises `UsageError` for options that are not possible with a finished image."""
    for name in arguments.names_of(arguments.results):
        if reference.parse(name).digest or _DIGEST.fullmatch(name):
            raise UsageError(
                f"-t {name} is a digest, but an image is named by a tag.",
                hint="Pass a name with a tag: -t shop:1.4",
            )
    for output in arguments.outputs:
        fields = fields_of(output)
        kind = fields.get("type")
        if kind not in _KINDS:
            raise UsageError(
                f"--output {output} cannot be written for an image with state.",
                hint=f"Supported types: {', '.join(_KINDS)}.",
            )
        if kind in ("tar", "local", "oci") and not fields.get("dest"):
            raise UsageError(f"--output {output} requires dest=PATH.")
        if is_on("push-by-digest", fields.get("push-by-digest")):
            raise UsageError(
                f"--output {output} pushes an image without a tag.",
                hint="Push it with docker itself, then: state-bundler embed NAME@DIGEST --tag NAME",
            )
    if len(arguments.shapes) > 1:
        raise UsageError(
            "The outputs differ in how the image is compressed or annotated.",
            hint="Give each --output the same options, or build each separately.",
        )
    if not all(arguments.names_of([output]) for output in arguments.pushed):
        raise UsageError("--push requires a name: add -t NAME.")


def carry_out(engine: Engine, arguments: Arguments, image_id: str, listener: Listener) -> None:
    """Writes files and pushes. Raises `ChildFailed` if a push fails, `InputOutputError`."""
    for fields in arguments.results:
        _output(engine, fields, image_id, arguments.names_of([fields]))
    for name in arguments.names_of(arguments.pushed):
        listener.phase(f"Pushing {name}")
        argv = engine.docker.argv("push", name)
        exit_code = process.pass_through(argv, env=engine.docker.environment, stdout=2)
        if exit_code:
            raise ChildFailed(f"docker push {name}", exit_code)
    if arguments.metadata_file is not None or arguments.iidfile is not None:
        write_files(arguments, image_id, digests(engine, image_id))


def digests(engine: Engine, image_id: str) -> dict[str, str]:
    """The digests of an image in an engine, as docker's metadata has them."""
    there = engine.image(image_id).get("RepoDigests") if engine.has_image(image_id) else None
    manifests = [name.rpartition("@")[2] for name in there or ()]
    found = {"containerimage.digest": manifests[0]} if manifests else {}
    # containerd's store identifies an image by its manifest.
    return found if image_id in manifests else {"containerimage.config.digest": image_id, **found}


def write_files(arguments: Arguments, image_id: str, metadata: Mapping[str, str]) -> None:
    """Writes ``--metadata-file`` and ``--iidfile``. Raises `InputOutputError`."""
    if arguments.metadata_file is not None:
        told = {**metadata, "image.name": arguments.image_name}
        write(Path(arguments.metadata_file), msgspec.json.encode(told))
    if arguments.iidfile is not None:
        write(Path(arguments.iidfile), image_id.encode())


def _output(engine: Engine, fields: Mapping[str, str], image_id: str, names: Sequence[str]) -> None:
    destination = fields.get("dest")
    if destination is None:
        return
    if fields["type"] in ("docker", "oci"):
        _layout(engine, image_id, fields, names)
    elif fields["type"] in ("tar", "local"):
        with engine.container(image_id) as identity:
            if fields["type"] == "tar":
                with engine.export(identity) as archive, _opened(destination) as stream:
                    shutil.copyfileobj(archive, stream, _CHUNK_BYTES)
            else:
                engine.docker.ask("cp", "--archive", f"{identity}:/.", destination, timeout=3600)


def _layout(engine: Engine, image_id: str, fields: Mapping[str, str], names: Sequence[str]) -> None:
    """Writes the image as an archive, or as a layout's folder with ``tar=false``.

    The engine's own archive would have only the names that the image has in the engine.
    """
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        layout = LayoutFolder.create(Path(folder))
        with saved(engine, image_id) as source:
            copy(source.store, layout, source.entry)
            publish_only(layout, source.entry.raw, *names)
            if fields["type"] == "docker":
                _list_for_docker(layout, source.entry, names)
        write_layout(layout.path, fields)


def _list_for_docker(layout: LayoutFolder, entry: Descriptor, names: Sequence[str]) -> None:
    """Adds the list by which engines without containerd's store load an archive."""
    (found,) = (LoadedImage(layout, one) for one in images_of(layout, entry))
    config, *layers = (
        f"blobs/sha256/{digest.removeprefix('sha256:')}"
        for digest in (found.manifest["config"]["digest"], *(it.digest for it in found.layers))
    )
    full = (str(reference.parse(name)).removeprefix(f"{reference.HUB}/") for name in names)
    tags = [name.removeprefix("library/") for name in full]
    listed = {"Config": config, "RepoTags": tags, "Layers": layers}
    write(layout.path / "manifest.json", msgspec.json.encode([listed]))


def write_layout(layout: Path, fields: Mapping[str, str]) -> None:
    """Writes a complete layout as ``--output type=oci`` requests."""
    if is_on("tar", fields.get("tar", "true")):
        with _opened(fields["dest"]) as stream:
            pack(layout, stream)
    else:
        add_to_folder(LayoutFolder(layout), Path(fields["dest"]))


@contextmanager
def _opened(destination: str) -> Iterator[BinaryIO]:
    if destination == "-":
        with open(1, "wb", closefd=False) as stdout:
            yield stdout
        return
    target = Path(destination)
    with io_errors(target), replaced_file(target) as stream:
        yield stream


def write(path: Path, data: bytes) -> None:
    """Raises `InputOutputError`; the file is then unchanged."""
    with io_errors(path):
        save(path, data)
