"""PEX files made and run by the real pex. About 40 s."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.zipfiles import ZipEntry, ZipFile
from bundler.artifacts.verify import verify
from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.state.artifact import LABEL_CODE, LABEL_RUN_RECORD, LABEL_STATES
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, RunRecord
from tests.support.embedding import embed_pex
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    output_of,
    package,
    run_pex,
    set_state,
)


@pytest.fixture(scope="session")
def pex_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build-root")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, pex_root: Path) -> Path:
    """A zipapp with an older state in it, as pex made it."""
    folder = tmp_path_factory.mktemp("plain")
    package(folder / "src", A="old", B="gone")
    run_pex("-D", "src", "-m", "shop", "--venv", "-o", "plain.pex", cwd=folder, root=pex_root)
    return folder / "plain.pex"


def test_new_state_is_served_where_the_older_pex_has_run(plain: Path, tmp_path: Path) -> None:
    assert output_of(plain, tmp_path / "root") == "A=old B=gone"
    embed_pex(plain, [bundle_of(set_state(tmp_path / "s", A="new"))], RECORD, tmp_path / "new.pex")
    assert output_of(tmp_path / "new.pex", tmp_path / "root") == "A=new"
    assert output_of(plain, tmp_path / "root") == "A=old B=gone"


def test_the_result_verifies_and_a_flipped_byte_does_not(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.pex"
    embed_pex(plain, [bundle_of(set_state(tmp_path / "s", A="abc" * 50))], RECORD, target)
    with PexArtifact(target) as artifact:
        assert verify(artifact).all_problems == ()
    data = target.read_bytes()
    at = data.index(b"A/state") + len(b"A/state") + 3
    target.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with PexArtifact(target) as artifact, pytest.raises(VerificationFailed, match="A/state"):
        verify(artifact).raise_for_problems()


@pytest.mark.parametrize("damaged", [None, "A/state", "shop/zebra.py"])
def test_verifying_reads_each_state_once(
    damaged: str | None, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is hashed for pex is not read again for the manifest; a damaged file is named, and no
    other one."""
    target = tmp_path / "new.pex"
    states = set_state(tmp_path / "s", A="abc" * 50, B="é" * 2_000_000)
    embed_pex(plain, [bundle_of(states)], RECORD, target)
    if damaged:
        data = bytearray(target.read_bytes())
        data[data.index(damaged.encode()) + len(damaged) + 3] ^= 1
        target.write_bytes(data)
    opened = record_opened(monkeypatch)
    with PexArtifact(target) as artifact:
        found = verify(artifact)
    if damaged is None:
        assert found.all_problems == ()
        assert opened.count((str(target), f"{PLACE}/B/state")) == 1
    else:
        assert found.all_problems
        assert all(damaged in problem for problem in found.all_problems)


def record_opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """File and entry, each time that an entry of a zip file is opened from now on."""
    opened: list[tuple[str, str]] = []
    really = ZipFile.open

    def recorded(file: ZipFile, entry: ZipEntry) -> BinaryIO:
        opened.append((file.name, entry.name))
        return really(file, entry)

    monkeypatch.setattr(ZipFile, "open", recorded)
    return opened


def test_state_that_is_replaced_is_not_read(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a PEX whose code was changed since is refused, however little is read."""
    target = tmp_path / "a.pex"
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    embed_pex(plain, [bundle], RECORD, target)
    opened = record_opened(monkeypatch)
    embed_pex(target, [bundle_of(set_state(tmp_path / "t", A="2"))], RECORD, tmp_path / "b.pex")
    mine = {entry for file, entry in opened if file == str(target)}
    assert "shop/zebra.py" in mine
    assert f"{PLACE}/A/state" not in mine
    with zipfile.ZipFile(target, "a") as file:
        file.writestr("shop/late.py", "")
    with pytest.raises(VerificationFailed, match="do not match its contents"):
        embed_pex(target, [bundle], RECORD, target)


def test_it_is_the_file_that_pex_itself_makes_of_the_same_inputs(
    tmp_path: Path, pex_root: Path
) -> None:
    """Same order, same hashes, same bytes: also for names that sort around the state's."""
    source = package(tmp_path / "src", A="old")
    run_pex("-D", "src", "-m", "shop", "-o", "plain.pex", cwd=tmp_path, root=pex_root)
    state = set_state(tmp_path / "s", A="new", Kä="ü" * 200_000)
    bundle = bundle_of(state)
    embed_pex(tmp_path / "plain.pex", [bundle], RECORD, tmp_path / "ours.pex")
    set_state(source / PLACE, A="new", Kä="ü" * 200_000)
    (source / PLACE / MANIFEST_NAME).write_bytes(bundle.manifest.raw)
    with PexArtifact(tmp_path / "ours.pex") as artifact:
        properties = artifact.info.build_properties
    labels = [
        argument
        for name in (LABEL_CODE, LABEL_STATES, LABEL_RUN_RECORD)
        for argument in ("--build-property", f"{name}={quoted(properties[name])}")
    ]
    run_pex("-D", "src", "-m", "shop", "-o", "theirs.pex", *labels, cwd=tmp_path, root=pex_root)
    assert (tmp_path / "ours.pex").read_bytes() == (tmp_path / "theirs.pex").read_bytes()


def quoted(text: str) -> str:
    import json

    return json.dumps(text)


@pytest.mark.parametrize(
    "options",
    [["--sh-boot"], ["--no-compress"], ["--compile"]],
    ids=" ".join,
)
def test_every_kind_of_zipapp_serves_the_new_state(
    options: list[str], tmp_path: Path, pex_root: Path
) -> None:
    package(tmp_path / "src", A="old")
    run_pex("-D", "src", "-m", "shop", *options, "-o", "a.pex", cwd=tmp_path, root=pex_root)
    runs = {**os.environ, "PEX_ROOT": str(tmp_path / "root")}
    subprocess.run([tmp_path / "a.pex"], env=runs, check=True, capture_output=True)
    bundle = bundle_of(set_state(tmp_path / "s", A="new"))
    embed_pex(tmp_path / "a.pex", [bundle], RECORD, tmp_path / "a.pex")
    done = subprocess.run([tmp_path / "a.pex"], env=runs, check=True, capture_output=True)
    assert done.stdout.decode().strip() == "A=new"


def test_the_same_inputs_give_the_same_file(plain: Path, tmp_path: Path) -> None:
    bundle = bundle_of(set_state(tmp_path / "s", A="1", B="2"))
    other = bundle_of(set_state(tmp_path / "t", A="1", B="2"))
    embed_pex(plain, [bundle], RECORD, tmp_path / "one.pex")
    embed_pex(
        plain, [bundle_of(set_state(tmp_path / "u", C="3"))], RECORD, tmp_path / "between.pex"
    )
    embed_pex(tmp_path / "between.pex", [other], RECORD, tmp_path / "two.pex")
    assert (tmp_path / "one.pex").read_bytes() == (tmp_path / "two.pex").read_bytes()


def test_the_mode_is_kept_and_no_other_file_is_left(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "app.pex"
    target.parent.mkdir()
    target.write_bytes(plain.read_bytes())
    target.chmod(0o750)
    embed_pex(target, [bundle_of(set_state(tmp_path / "s", A="1"))], RECORD, target)
    assert target.stat().st_mode & 0o777 == 0o750
    assert list(target.parent.iterdir()) == [target]


def test_a_state_that_changes_meanwhile_does_not_alter_the_file(
    plain: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "app.pex"
    target.parent.mkdir()
    target.write_bytes(plain.read_bytes())
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    (tmp_path / "s" / "A" / "state").write_text("2")
    with pytest.raises(VerificationFailed, match="A/state changed"):
        embed_pex(target, [bundle], RECORD, target)
    assert target.read_bytes() == plain.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_the_run_record_names_the_path_in_the_artifact(plain: Path, tmp_path: Path) -> None:
    keys = (KeyRefresh("A", attempts=2),)
    record = RunRecord(refresh=(DirectoryRefresh(PLACE, keys),), read_back="every byte")
    embed_pex(plain, [bundle_of(set_state(tmp_path / "s", A="1"))], record, tmp_path / "new.pex")
    with PexArtifact(tmp_path / "new.pex") as artifact:
        assert artifact.run_record() == record
        assert [claim.path for claim in artifact.claims() or ()] == [PLACE]


def test_a_package_that_is_not_importable_names_the_candidates(
    tmp_path: Path, pex_root: Path
) -> None:
    package(tmp_path / "src")
    run_pex("-D", ".", "-m", "src.shop", "-o", "a.pex", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="1"))
    with pytest.raises(ConfigurationError, match=r"src/shop/defs"):
        embed_pex(tmp_path / "a.pex", [bundle], RECORD, tmp_path / "b.pex")
    assert not (tmp_path / "b.pex").exists()


def test_state_in_a_dead_copy_is_refused(tmp_path: Path, pex_root: Path) -> None:
    package(tmp_path / "all", A="old")
    package(tmp_path / "all" / "working_directory", A="old")
    run_pex("-D", "all", "-m", "shop", "-o", "a.pex", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="1"))
    with pytest.raises(VerificationFailed, match=f"working_directory/{PLACE}"):
        embed_pex(tmp_path / "a.pex", [bundle], RECORD, tmp_path / "b.pex")


def test_hashes_that_do_not_reproduce_are_refused(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "changed.pex"
    target.write_bytes(plain.read_bytes())
    with zipfile.ZipFile(target, "a") as file:
        file.writestr("shop/late.py", "")
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    with pytest.raises(VerificationFailed, match="do not match its contents"):
        embed_pex(target, [bundle], RECORD, target)


def test_a_scie_is_refused_with_the_way_to_reseal_it(plain: Path, tmp_path: Path) -> None:
    scie = tmp_path / "app"
    scie.write_bytes(b"\x7fELF" + plain.read_bytes())
    with pytest.raises(UsageError) as caught:
        PexArtifact(scie)
    assert "pex3 scie create" in caught.value.hint
