"""The two laws of every kind of artifact: what was embedded verifies, and comes out as it went in.

And their other half: whatever one bit of what was embedded is changed, it is found. About 30 s.
Images that others keep for us are in `test_laws_elsewhere`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import BadData, BundlerError, ConfigurationError
from bundler.state.bundle import Bundle
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, RunRecord, state_of
from bundler.state.statedir import StateDir, check_keys, sanitize_key
from bundler.state.tree import scan
from tests.support.embedding import embed_layout, embed_pex, embed_wheel
from tests.support.in_memory import in_memory
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.pex_projects import package, run_pex, wheel

_PLACE = "shop/defs/.local_defs_state"
States = Mapping[str, Mapping[str, bytes]]
# Makes an artifact with a bundle in a folder; returns its name.
Embed = Callable[[Bundle, RunRecord, Path], str]

_NAMES = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters="/\\\0"),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in (".", ".."))
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_FILES = st.dictionaries(_PATHS, st.binary(max_size=200), max_size=4)
_KEYS = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)


def _publish(root: Path, states: States) -> tuple[Bundle, RunRecord]:
    """Publishes states with a ``state`` in each; assumes that they are possible at all."""
    directory = StateDir(root / _PLACE, _PLACE)
    try:
        check_keys(states)
    except ConfigurationError:
        assume(condition=False)
    entries = []
    with directory.staging() as staging:
        for key, files in states.items():
            target = staging.key_directory(key)
            _write(target, {"state": b"{}", **files})
            try:
                entries.append(state_of(key, sanitize_key(key), scan(target)))
            except BadData:
                assume(condition=False)  # names that are one under case folding, for instance
        keys = tuple(KeyRefresh(key, 1, fetched="2026-01-02T03:04:05Z") for key in sorted(states))
        published = staging.publish(entries, (), DirectoryRefresh(_PLACE, keys))
    return published.bundle, RunRecord(refresh=(published.refresh,))


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        assume(condition=False)  # a file and a directory of one name


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What states are embedded into: PEX files, a wheel, an image; each holds an older state."""
    folder = tmp_path_factory.mktemp("bases")
    package(folder / "src", Old="gone")
    root = folder / "pex-root"
    run_pex("-D", "src", "--venv", "-o", "zipapp.pex", cwd=folder, root=root)
    for layout in ("packed", "loose"):
        run_pex("-D", "src", "--layout", layout, "-o", f"{layout}.pex", cwd=folder, root=root)
    wheel(folder)
    image = LayoutMaker(folder / "image")
    image.tag(image.manifest([code_layer()], {"WorkingDir": "/app"}))
    return folder


def _embedders(bases: Path) -> dict[str, Embed]:
    def directory(bundle: Bundle, _: RunRecord, __: Path) -> str:
        return str(bundle.root)

    def zipapp(bundle: Bundle, record: RunRecord, to: Path) -> str:
        embed_pex(bases / "zipapp.pex", [bundle], record, to / "a.pex")
        return str(to / "a.pex")

    def packed(bundle: Bundle, record: RunRecord, to: Path) -> str:
        embed_pex(bases / "packed.pex", [bundle], record, to / "a")
        return str(to / "a")

    def loose(bundle: Bundle, record: RunRecord, to: Path) -> str:
        embed_pex(bases / "loose.pex", [bundle], record, to / "a")
        return str(to / "a")

    def into_wheel(bundle: Bundle, record: RunRecord, to: Path) -> str:
        name = "shop-1.0-py3-none-any.whl"
        embed_wheel(bases / name, [bundle], record, to / name)
        return str(to / name)

    def onto_image(bundle: Bundle, record: RunRecord, to: Path) -> str:
        embed_layout(bases / "image", [bundle], record, to / "image")
        return f"oci:{to / 'image'}"

    def archive(bundle: Bundle, record: RunRecord, to: Path) -> str:
        embed_layout(None, [bundle], record, to / "states.tar")
        return str(to / "states.tar")

    found = (directory, zipapp, packed, loose, into_wheel, onto_image, archive)
    return {embed.__name__: embed for embed in found}


_KINDS = ["directory", "zipapp", "packed", "loose", "into_wheel", "onto_image", "archive"]


# States, by key the files next to ``state``.
all_states = st.dictionaries(_KEYS, _FILES, min_size=1, max_size=3)


@pytest.mark.parametrize("kind", _KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(states=all_states)
def test_what_is_embedded_verifies_and_comes_out_as_it_went_in(
    kind: str, bases: Path, states: States
) -> None:
    holds(_embedders(bases)[kind], states)


def holds(embed: Embed, states: States) -> None:
    """Embeds states; what comes of it verifies, and the same comes out again."""
    with in_memory() as folder:
        bundle, record = _publish(folder / "in", states)
        name = embed(bundle, record, folder)
        with open_artifact(name) as artifact:
            verdict = verify(artifact)
            assert verdict.all_problems == ()
            (out,) = extract(artifact, folder / "out")
        assert out.manifest == bundle.manifest
        assert verdict.record is not None
        assert verdict.record.refresh[0].keys == record.refresh[0].keys
        for key, files in states.items():
            found = scan(out.target / sanitize_key(key))
            expected = {"state": b"{}", **files}
            assert [entry.path for entry in found.files] == sorted(expected, key=os.fsencode)
            for path, content in expected.items():
                assert (out.target / sanitize_key(key) / path).read_bytes() == content


@pytest.mark.parametrize("kind", ["zipapp", "into_wheel", "archive"])
def test_a_flipped_bit_never_changes_what_a_verified_artifact_gives(
    kind: str, bases: Path, tmp_path: Path
) -> None:
    """Bits all over the file: it no longer verifies, or what comes out is the same."""
    states = {"A": {"state": b"0123456789" * 30}, "B[x]": {"state": b"", "a/b": b"x"}}
    bundle, record = _publish(tmp_path / "in", states)
    path = Path(_embedders(bases)[kind](bundle, record, tmp_path))
    whole = path.read_bytes()
    with open_artifact(str(path)) as artifact:
        before = verify(artifact)
    found = 0
    for position in range(0, len(whole) * 8, max(1, len(whole) * 8 // 150)):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            with open_artifact(str(path)) as artifact:
                verdict = verify(artifact)
        except BundlerError:
            found += 1
            continue
        if verdict.all_problems:
            found += 1
        else:
            assert [item.manifest for item in verdict.directories] == [bundle.manifest]
            assert verdict.record == before.record
    assert found
