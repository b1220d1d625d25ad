"""Hostile images cost little and end with exit code 76: archives, indexes, configurations."""

from __future__ import annotations

import copy
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image import image
from bundler.artifacts.image.ociread import open_layout
from bundler.artifacts.verify import verify
from tests.support.bundles import PLACE, make_bundle
from tests.support.crafted import (
    END,
    STATE,
    STATES,
    chunks,
    header,
    joined,
    long_name,
    make,
    pax,
    refusal,
)
from tests.support.layouts import LayoutMaker, blob_of, code_layer, embed_here

COMMAND = [sys.executable, "-c", "import sys; from bundler.cli import main; sys.exit(main())"]
DEEP = "/".join(["d"] * 3000)
# Members that cost much to read, or cannot be.
TAR_BOMBS: dict[str, bytes] = {
    "a chain of pax headers": pax(("mtime", "1")) * 5000 + header("x"),
    "a chain of GNU names": long_name("y") * 5000 + header("x"),
    "names and targets in turn": (long_name("y") + long_name("z", b"K")) * 2000 + header("x"),
    "global attributes without end": pax(("comment", "c"), flag=b"g") * 5000 + pax(("path", "")),
    "a pax header of a terabyte": header("x", flag=b"x", size=8**11 - 1),
    "a GNU name of a terabyte": header("x", flag=b"L", size=8**11 - 1),
    "a file of a terabyte": header("x", size=8**11 - 1),
    "a size of minus one": header("x").replace(b"0" * 11, b"\xff" * 11, 1),
    "an invalid pax size": pax(("size", "9" * 40)) + header("x"),
    "a pax record that is longer than its header": header("x", b"999 path=y\n", b"x") + header("x"),
    "a pax record without a length": header("x", b"path=y\n", b"x") + header("x"),
    "a pax record of no length": header("x", b"0 path=y\n", b"x") + header("x"),
    "3000 directories in each other": pax(("path", DEEP)) + header("x"),
    "a name of 300 bytes": pax(("path", "n" * 300)) + header("x"),
    "a path of 5000 bytes": pax(("path", "/".join(["n" * 200] * 25))) + header("x"),
    "a path out of the image": header("../x"),
    "a whiteout of nothing": header("app/.wh."),
    "a whiteout of the parent": header("app/.wh..."),
    "something below a whiteout": header("app/.wh.x/y"),
    "overlay attributes": pax(("SCHILY.xattr.trusted.overlay.redirect", "/evil")) + header("x"),
    "half a header": header("x")[:300],
    "a header whose sum is wrong": header("x").replace(b"x", b"y", 1),
    "a name of no bytes": pax(("path", "")) + header("x"),
    "a name with a zero byte": pax(("path", "a\0b")) + header("x"),
}


@pytest.mark.parametrize("what", TAR_BOMBS)
def test_no_tar_header_is_believed(what: str, tmp_path: Path) -> None:
    good = make(tmp_path)
    bomb = TAR_BOMBS[what]
    top = chunks(good.layers[-1])
    for number, crafted in enumerate(
        (
            good.with_top(joined([*top.values(), bomb])),
            good.with_top(joined([bomb, *top.values()])),
            good.with_layer(bomb + END),
        )
    ):
        assert refusal(lambda: open_layout(crafted.layout(tmp_path / str(number))))  # noqa: B023
    archive = tmp_path / "bomb.tar"
    archive.write_bytes(header("index.json", b"{}") + bomb + END)
    assert refusal(lambda: open_layout(archive))


def _settings(**settings: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["config"].update(settings)


CONFIGURATIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "labels as a list": _settings(Labels=["a"]),
    "labels that are numbers": _settings(Labels={"a": 1}),
    "no object at all": lambda config: config.update(config=[]),
    "variables that are numbers": _settings(Env=[1]),
    "variables as an object": _settings(Env={}),
    "a command as an object": _settings(Cmd={}),
    "a user as a number": _settings(User=1000),
    "volumes as a list": _settings(Volumes=["/x"]),
    "volumes by another name": _settings(volumes={f"/{STATE}": {}}),
    "labels by another name": _settings(LABELS={}),
    "a second configuration": lambda config: config.update(Config={"Volumes": {"/app": {}}}),
    "history as text": lambda config: config.update(history="x"),
    "history of numbers": lambda config: config.update(history=[1]),
    "no layers": lambda config: config.update(rootfs={}),
    "layers as text": lambda config: config.update(rootfs={"diff_ids": "x"}),
    "layers of numbers": lambda config: config.update(rootfs={"diff_ids": [1, 2]}),
    "one layer more": lambda config: config["rootfs"]["diff_ids"].append("sha256:" + "0" * 64),
    "invalid places": lambda config: config["config"]["Labels"].update(
        {image.LABEL_PLACES: '{"user":"x","places":[["a"]]}'}
    ),
    "a place that leads out": lambda config: config["config"]["Labels"].update(
        {
            image.LABEL_PLACES: config["config"]["Labels"][image.LABEL_PLACES].replace(
                "/app/src/shop", "/app/../shop"
            )
        }
    ),
    "a parent of an impossible owner": lambda config: config["config"]["Labels"].update(
        {
            image.LABEL_PLACES: config["config"]["Labels"][image.LABEL_PLACES].replace(
                ",1000,", ",-5,"
            )
        }
    ),
    "a parent of a huge owner": lambda config: config["config"]["Labels"].update(
        {
            image.LABEL_PLACES: config["config"]["Labels"][image.LABEL_PLACES].replace(
                ",1000,", f",{2**62},"
            )
        }
    ),
    "another user": lambda config: config["config"]["Labels"].update(
        {
            image.LABEL_PLACES: config["config"]["Labels"][image.LABEL_PLACES].replace(
                '"user":0', '"user":-1'
            )
        }
    ),
}


# Without these labels the whole image is read, and it is whole. Nothing here belongs to the user.
UNNEEDED = {"invalid places", "a place that leads out", "another user"}


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_no_configuration_is_believed(what: str, tmp_path: Path) -> None:
    crafted = make(tmp_path)
    CONFIGURATIONS[what](crafted.config)
    crafted.annotations.clear()
    found = refusal(lambda: open_layout(crafted.layout(tmp_path / "layout")))
    assert found or what in UNNEEDED


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    """Go joins the two, other readers take the last: the volume would be seen by engines alone."""
    crafted = make(tmp_path)
    raw = json.dumps(crafted.config).replace(
        '"Labels"', f'"Volumes": {{"/{STATE}": {{}}}}, "Volumes": {{}}, "Labels"'
    )
    layout = crafted.layout(tmp_path / "layout")
    maker = LayoutMaker(layout)
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    body = json.loads(blob_of(layout, entry["digest"]).read_text())
    body["config"] = maker.blob(raw.encode(), body["config"]["mediaType"])
    maker.tag(maker.blob(json.dumps(body).encode(), entry["mediaType"]))
    (problem,) = refusal(lambda: open_layout(layout))
    assert "'Volumes' twice" in problem


MANIFESTS: dict[str, Mapping[str, object]] = {
    "layers as text": {"layers": "x"},
    "an invalid layer": {"layers": [{}]},
    "no configuration": {"config": None},
    "a list of manifests, too": {"manifests": []},
    "layers by another name": {"Layers": []},
    "another media type": {"mediaType": image.OCI_INDEX},
    "annotations as a list": {"annotations": ["a"]},
    "annotations of numbers": {"annotations": {"a": 1}},
    "nested without end": {"x": json.loads("[" * 900 + "]" * 900)},
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_no_manifest_is_believed(what: str, tmp_path: Path) -> None:
    layout = make(tmp_path).layout(tmp_path / "layout")
    maker = LayoutMaker(layout)
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    body = json.loads(blob_of(layout, entry["digest"]).read_text())
    changed = {**body, **MANIFESTS[what]}
    raw = json.dumps(changed) if what != "nested without end" else '{"x":' + "[" * 100_000
    maker.tag(maker.blob(raw.encode(), entry["mediaType"]))
    assert refusal(lambda: open_layout(layout))


@pytest.mark.parametrize(("depth", "width"), [(3, 300), (2, 3000), (6, 2), (1, 300)])
def test_index_bombs_are_refused(depth: int, width: int, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path)
    entry = maker.manifest([code_layer()], {})
    for _ in range(depth):
        entry = maker.index([entry] * width)
    maker.tag(entry)
    (problem,) = refusal(lambda: open_layout(tmp_path))
    assert "index of more than" in problem


@pytest.mark.parametrize("platform", ["linux", [], {"os": 1}, {"OS": "linux"}])
def test_an_invalid_platform_is_refused(platform: object, tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path)
    maker.tag(maker.index([{**maker.manifest([code_layer()], {}), "platform": platform}]))
    assert refusal(lambda: open_layout(tmp_path))


def test_more_layers_than_any_engine_takes_are_refused(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path)
    maker.tag(maker.manifest([code_layer()] * 501, {}))
    (problem,) = refusal(lambda: open_layout(tmp_path))
    assert "501 layers" in problem


@pytest.mark.slow
def test_one_blob_as_many_layers_unpacks_no_further_than_once(tmp_path: Path) -> None:
    """20 KB that would unpack to 6 GB."""
    maker = LayoutMaker(tmp_path)
    entry = maker.manifest([header("x", bytes(20 << 20)) + END] * 300, {})
    assert len(gzip.compress(bytes(20 << 20))) < 30_000
    maker.tag(entry)
    (problem,) = refusal(lambda: open_layout(tmp_path))
    assert "decompresses to more" in problem


# --- not files ----------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("kind", [_fifo, _zeros, _directory])
@pytest.mark.parametrize(
    ("command", "which"),
    [
        *(("verify", which) for which in ("index.json", "manifest", "config", "layer")),
        *((command, "layer") for command in ("diff", "extract", "status")),
    ],
)
def test_what_is_not_a_file_is_never_waited_for(
    which: str, kind: Callable[[Path], None], command: str, tmp_path: Path
) -> None:
    layout = make(tmp_path).layout(tmp_path / "layout")
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    body = json.loads(blob_of(layout, entry["digest"]).read_text())
    paths = {
        "index.json": layout / "index.json",
        "manifest": blob_of(layout, entry["digest"]),
        "config": blob_of(layout, body["config"]["digest"]),
        "layer": blob_of(layout, body["layers"][-1]["digest"]),
    }
    kind(paths[which])
    name = f"oci:{layout}"
    more = {"diff": [name], "extract": ["-o", str(tmp_path / "out")]}.get(command, [])
    done = subprocess.run(
        [*COMMAND, command, name, *more], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 76, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_an_archive_that_is_a_fifo_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.tar")
    argv = [*COMMAND, "verify", f"oci:{tmp_path / 'image.tar'}"]
    done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
    assert done.returncode == 76, done.stderr.decode()


def test_nothing_is_written_through_a_linked_blob_folder(tmp_path: Path) -> None:
    from bundler.artifacts.image.layout import LayoutFolder
    from bundler.errors import InputOutputError

    layout = make(tmp_path).layout(tmp_path / "layout")
    elsewhere = tmp_path / "elsewhere"
    (layout / "blobs").rename(elsewhere)
    (layout / "blobs").symlink_to(elsewhere)
    with pytest.raises(InputOutputError, match="is a link"):
        LayoutFolder(layout).add_config({})


# --- a million files ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "diff", "extract"])
def test_many_files_in_the_topmost_layer_are_not_all_read(command: str, tmp_path: Path) -> None:
    """By structure: what comes after the first member that does not belong there is damaged."""
    good = make(tmp_path)
    bad = good.with_top(good.layers[-1][: -len(END)] + header("app/a") * 1000 + b"damaged")
    name, other = (
        f"oci:{crafted.layout(tmp_path / tag)}" for tag, crafted in (("bad", bad), ("same", good))
    )
    more = {"diff": [other], "extract": ["-o", str(tmp_path / "out")]}.get(command, [])
    done = subprocess.run(
        [*COMMAND, command, name, *more], capture_output=True, timeout=120, check=False
    )
    if command == "diff":  # it looks at manifests, and into files that differ
        assert done.returncode == 0, done.stderr.decode()
    else:
        assert done.returncode == 76
        assert b"app/a, which is not part of a state" in done.stderr + done.stdout


@pytest.mark.parametrize("folder", ["app", "app/src/shop/defs", STATE, f"{STATE}/Dbt/project"])
@pytest.mark.parametrize("mode", [0, 0o400, 0o100, 0o077])
def test_a_directory_that_a_later_layer_closes_is_named(
    folder: str, mode: int, tmp_path: Path
) -> None:
    closed = make(tmp_path).with_layer(header(f"{folder}/", flag=b"5", mode=mode) + END)
    found = refusal(lambda: open_layout(closed.layout(tmp_path / "layout")))
    assert f"/{folder} cannot be read by its owner." in found


@pytest.mark.parametrize("user", ["1000", "1000:1000", "0", ""])
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o711])
@pytest.mark.parametrize("is_later", [False, True])
def test_a_directory_that_the_images_user_may_not_enter_is_named(
    user: str, mode: int, is_later: bool, tmp_path: Path
) -> None:
    """Whether the code's image closes it, or a later layer."""
    path = tmp_path / "layout"
    closed = header("app/src/", flag=b"5", mode=mode) + END
    if is_later:
        make(tmp_path).with_layer(closed).with_settings(User=user).layout(path)
    else:
        maker = LayoutMaker(tmp_path / "base")
        maker.tag(maker.manifest([code_layer(), closed], {"WorkingDir": "/app", "User": user}))
        embed_here(maker.path, make_bundle(tmp_path / "states", STATES, place=PLACE), path)
    with open_layout(path) as artifact:
        found = verify(artifact).all_problems
    in_roots_group = (mode, user) == (0o750, "1000")
    named = f"runs as {user}, who may not enter /app/src (mode {mode:04o}, owner 0:0)"
    assert [named in problem for problem in found] == (
        [] if user in ("", "0") or mode == 0o711 or in_roots_group else [True]
    )


# --- attestations ---------------------------------------------------------------------------


def _platform(entry: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    return {**entry, "platform": {"os": "linux", "architecture": architecture}}


ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "disguise",
    [
        {},
        {"annotations": ATTESTATION},
        {"annotations": {"vnd.docker.reference.type": "x"}},
        {"annotations": ATTESTATION, "platform": {"os": "linux", "architecture": "arm64"}},
        {"annotations": ATTESTATION, "platform": {"os": "unknown", "architecture": "amd64"}},
        {"annotations": ATTESTATION, "platform": UNKNOWN},
        {"platform": UNKNOWN},
    ],
)
def test_only_an_attestation_is_passed_over(
    disguise: Mapping[str, Any], first: bool, tmp_path: Path
) -> None:
    crafted = make(tmp_path)
    maker = LayoutMaker(tmp_path / "layout")
    whole = _platform(maker.manifest(crafted.layers, whole=crafted.config), "amd64")
    bare = {**maker.manifest([code_layer()], {"WorkingDir": "/app"}), **disguise}
    maker.tag(maker.index([bare, whole] if first else [whole, bare]))
    assert refusal(lambda: open_layout(tmp_path / "layout"))


@pytest.mark.parametrize("nested", [True, False])
def test_a_real_attestation_is_passed_over(nested: bool, tmp_path: Path) -> None:
    crafted = make(tmp_path)
    maker = LayoutMaker(tmp_path / "layout")
    entry = maker.manifest(crafted.layers, whole=crafted.config)
    index = maker.index([maker.attestation(), _platform(entry, "amd64"), maker.attestation()])
    maker.tag(maker.index([index]) if nested else index)
    assert refusal(lambda: open_layout(tmp_path / "layout")) == []


@pytest.mark.parametrize("platform", [{}, None])
def test_what_names_no_platform_is_an_image(
    platform: Mapping[str, str] | None, tmp_path: Path
) -> None:
    crafted = make(tmp_path)
    maker = LayoutMaker(tmp_path / "layout")
    entry = maker.manifest(crafted.layers, whole=crafted.config)
    bare = {**maker.attestation(), "platform": platform}
    maker.tag(maker.index([_platform(entry, "amd64"), bare]))
    assert refusal(lambda: open_layout(tmp_path / "layout"))


def test_each_platform_of_one_state_layer_has_its_own_configuration(tmp_path: Path) -> None:
    crafted = make(tmp_path)
    hidden = copy.deepcopy(crafted.config)
    hidden["config"]["Volumes"] = {"/app": {}}
    maker = LayoutMaker(tmp_path / "layout")
    entries = [
        _platform(maker.manifest(crafted.layers, whole=config), architecture)
        for config, architecture in ((crafted.config, "amd64"), (hidden, "arm64"))
    ]
    for order in (entries, entries[::-1]):
        maker.tag(maker.index(order))
        maker._index = maker._index[-1:]
        (problem,) = refusal(lambda: open_layout(tmp_path / "layout"))
        assert "VOLUME /app" in problem
