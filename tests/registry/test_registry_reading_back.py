"""What is read back of an image in a registry before a tag names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.errors import VerificationFailed
from bundler.state.bundle import Bundle
from tests.registry.test_ci_templates import Ci
from tests.support import registries
from tests.support.bundles import make_bundle
from tests.support.layouts import LayoutMaker
from tests.support.pushing import STATES, embed, push_base, verdict_of
from tests.support.registries import Registry


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Registry]:
    """A registry with an image to put state on."""
    with registries.running() as found:
        push_base(LayoutMaker(tmp_path / "base"), f"{found.host}/shop:1")
        found.log.clear()
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "state", STATES)


def layer_of(ours: Registry, tag: str) -> str:
    return str(ours.manifest("shop", tag)["layers"][-1]["digest"])


@pytest.mark.parametrize("every_byte", [False, True])
def test_a_registry_vouches_for_the_digest_of_what_it_took(
    ours: Registry, bundle: Bundle, every_byte: bool
) -> None:
    verdict = embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1", every_byte=every_byte)
    assert verdict.all_problems == ()
    (directory,) = verdict.directories
    assert directory.manifest is not None
    assert directory.manifest.sha256 == bundle.manifest.sha256
    layer = layer_of(ours, "2")
    blob = f"/v2/shop/blobs/{layer}"
    # The manifest comes out of the layer in both cases; its digest is asked for where it counts.
    asked = [line for line in ours.log if line.endswith(blob)]
    assert asked[-1] == f"GET {blob}"
    assert every_byte or asked[-2] == f"HEAD {blob}"
    confirmed = f"layer {layer} confirmed by the registry"
    assert verdict.proof == ("every byte read" if every_byte else confirmed)
    assert verdict.record is not None
    assert verdict.record.read_back == ("every byte" if every_byte else "layer digest")
    # A later reader reads every byte.
    ours.log.clear()
    assert verdict_of(f"{ours.host}/shop:2").all_problems == ()
    assert f"GET {blob}" in ours.log


@pytest.mark.parametrize(("kept", "match"), [(None, "does not have it"), (b"other", "reports 5")])
def test_a_layer_that_was_lost_after_it_was_sent_gets_no_tag(
    ours: Registry, bundle: Bundle, kept: bytes | None, match: str
) -> None:
    sent = set(ours.blobs)

    def fault(_: int, method: str, path: str) -> None:
        if method == "HEAD" and "/blobs/" in path:
            name = ("shop", path.rpartition("/")[2])
            if name in ours.blobs and name not in sent:
                del ours.blobs[name]
                if kept is not None:
                    ours.blobs[name] = kept

    ours.fault = fault
    with pytest.raises(VerificationFailed, match=match):
        embed(f"{ours.host}/shop:2", bundle, f"{ours.host}/shop:1")
    assert ours.tag("shop", "2") is None


def test_the_command_line_passes_it_on(tmp_path: Path) -> None:
    with registries.running() as found:
        ci = Ci(tmp_path, found)
        ci.push(f"{ci.image}:1")
        for state, command in (
            ("1", f"embed {ci.image}:1 -t {ci.image}:2"),
            ("2", f"update docker://{ci.image}:2 --tag 3"),
        ):
            for option in ("", "--every-byte"):
                said = ci.sh(f"state-bundler {command} {option}", STATE=f"{state}{option}")
                layer = found.manifest("acme/shop", str(int(state) + 1))["layers"][-1]["digest"]
                confirmed = f"  layer {layer} confirmed by the registry\n"
                assert ("  every byte read\n" if option else confirmed) in said, command
