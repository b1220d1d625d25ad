"""An image's configuration and manifest: values in, values out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.artifacts.image import image, image_changes
from bundler.artifacts.image.image_changes import MAX_LAYERS
from bundler.artifacts.image.layer import Layer, Placed, Written
from bundler.errors import ConfigurationError
from bundler.state.artifact import LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, RunRecord
from tests.support.bundles import PLACE, make_bundle, make_record


def with_state(folder: Path, layers: int, record: RunRecord | None = None) -> image.Json:
    """An image of so many layers, with a state layer on top."""
    bundle = make_bundle(folder / "state", {"K": {"state": b"x"}})
    placed = (Placed(bundle, f"/{PLACE}", ()),)
    config = image_changes.empty_config("amd64")
    config["rootfs"]["diff_ids"] = [f"sha256:{number:064}" for number in range(layers)]
    written = Written("f" * 64, "f" * 64, 1)
    return image_changes.with_states(
        config,
        Layer(placed),
        written,
        record or make_record(bundle),
        created="2026-01-01T00:00:00Z",
    )


def test_more_layers_than_engines_accept_are_an_error(tmp_path: Path) -> None:
    with_state(tmp_path, MAX_LAYERS - 1)
    with pytest.raises(ConfigurationError, match="engines support 125"):
        with_state(tmp_path, MAX_LAYERS)


def test_a_record_too_long_for_a_manifest_is_only_a_label(tmp_path: Path) -> None:
    keys = tuple(KeyRefresh(f"Key[{number}]", attempts=1) for number in range(20_000))
    long = RunRecord(refresh=(DirectoryRefresh(PLACE, keys),))
    config = with_state(tmp_path, 1, long)
    assert LABEL_RUN_RECORD in image.labels(config)
    assert image_changes.annotations_for(config, long).keys() == {LABEL_STATES}
    short = with_state(tmp_path, 1, RunRecord())
    assert image_changes.annotations_for(short, RunRecord()).keys() == {
        LABEL_RUN_RECORD,
        LABEL_STATES,
    }


def test_what_decides_a_place_is_the_files_and_how_the_program_starts(tmp_path: Path) -> None:
    plain = with_state(tmp_path, 3)
    other = image_changes.without_last_layer(plain)
    assert (
        image.files_below(plain)
        == image.files_below(other)
        == image.labels(plain)[image.LABEL_BASE]
    )
    other["config"]["WorkingDir"] = "/elsewhere"
    assert image.files_below(plain) != image.files_below(other)
