"""The main job on the sample project, through the installed commands: refresh, build, verify.

One project and one first refresh (with real dbt) serve all tests here; each test that changes
something puts it back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import sample as sample_module
from tests.support.environments import python_of
from tests.support.sample import Sample
from tests.support.statedirs import snapshot
from tests.support.vendor import RecordedVendor

BIN = Path(sys.executable).parent
PRODUCTS = "VendorCatalog[products]"


@dataclass(frozen=True)
class Shop:
    """The sample project after its first refresh, and the vendor that it fetches from."""

    sample: Sample
    vendor: RecordedVendor

    def run(
        self, *arguments: str | Path, code: int = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = self.sample.run(BIN / "state-bundler", *arguments, check=False, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @property
    def states(self) -> dict[str, bytes]:
        return snapshot(self.sample.state_directory)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with RecordedVendor() as vendor:
        root = tmp_path_factory.mktemp("whole way") / "shop"
        shop = Shop(sample_module.make_repository(root, vendor.environment), vendor)
        shop.run("refresh")
        yield shop


@pytest.fixture(autouse=True)
def _as_it_was(shop: Shop) -> Iterator[None]:
    before = dict(shop.vendor.catalogs)
    yield
    shop.vendor.catalogs.clear()
    shop.vendor.catalogs.update(before)
    shop.vendor.start()


# --- refresh ------------------------------------------------------------------------------------


def test_a_second_refresh_changes_nothing_not_even_of_dbt(shop: Shop) -> None:
    before = shop.states
    assert not any(name.endswith((".log", ".env")) for name in before)
    done = shop.run("refresh")
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["unchanged"] * 2
    assert "ShopCalendar[2026] is LEGACY_CODE_SERVER_SNAPSHOTS" in done.stderr
    after = shop.states
    assert after.pop("@run.json") != before.pop("@run.json")  # it says when that was confirmed
    assert after == before
    contents = json.loads(before["@manifest.json"])["predicate"]["contents"]
    assert [state["key"] for state in contents["states"]] == [
        "DbtProjectComponent[warehouse]",
        PRODUCTS,
    ]
    assert {item["key"] for item in contents["nonLocal"]} == {
        "VendorCatalog[suppliers]",
        "ShopCalendar[2026]",
    }


def test_a_stopped_api_is_69_and_the_last_good_state_stays(shop: Shop) -> None:
    before = shop.states
    host = shop.vendor.url.removeprefix("http://")
    shop.vendor.stop()
    done = shop.run("refresh", "--key", PRODUCTS, code=69)
    assert f"{PRODUCTS}: {host} refused the connection" in done.stderr
    assert shop.states == before
    assert sorted(os.listdir(shop.sample.state_directory / "@staging")) == ["holder", "lock"]


def test_one_failing_key_publishes_none(shop: Shop) -> None:
    before = shop.states
    model = shop.sample.root / "warehouse" / "models" / "another.sql"
    model.write_text("select 1 as one")
    shop.vendor.stop()
    shop.run("refresh", code=69)
    model.unlink()
    assert shop.states == before


def test_what_was_refreshed_is_ignored_by_git_and_guarded(shop: Shop) -> None:
    assert shop.sample.git("status", "--porcelain", "--untracked-files=all") == ""
    shop.run("guard")
    state = shop.sample.state_directory / "VendorCatalog__products__" / "state"
    shop.sample.git("add", "--force", str(state))
    done = shop.run("guard", code=1)
    assert "VendorCatalog__products__/state" in done.stdout + done.stderr
    done = shop.run("build", "oci", "-o", shop.sample.root / "never", code=1)
    assert not (shop.sample.root / "never").exists()
    shop.sample.git("reset", "--quiet")


# --- the PEX --------------------------------------------------------------------------------------


def _build_pex(shop: Shop, output: Path, env: Mapping[str, str] | None = None) -> None:
    """A PEX of the project's own code; the libraries come from the environment at run time."""
    shop.run(
        "build", "pex", "-o", output, "--refresh", "missing", "--",
        "-D", "src", "-D", "pex", "--venv", env=env,
    )  # fmt: skip


def _assets(pex: Path, root: Path) -> set[str]:
    """The assets that the code location in a PEX loads with, as Dagster itself reports."""
    python = python_of("dagster")
    home = root.with_name("dagster-home")
    home.mkdir(exist_ok=True)
    packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(python.parent.parent)})
    probe = (
        "from dagster._core.definitions.definitions_load_context import *\n"
        "from dagster import DagsterInstance\n"
        "start = DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)\n"
        "DefinitionsLoadContext.set(start)\n"
        "with DagsterInstance.get():\n"
        "    from shop.definitions import defs\n"
        "    for spec in defs().resolve_all_asset_specs(): print(spec.key.to_user_string())"
    )
    done = subprocess.run(
        [python, pex, "-c", probe], capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "PEX_ROOT": str(root), "PEX_EXTRA_SYS_PATH": packages, "PEX_INTERPRETER": "1",
            "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "true",
            "SHOP_API_URL": "http://127.0.0.1:1", "SHOP_API_TOKEN": "not-needed-at-load",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_pex_loads_with_new_assets_where_the_older_one_has_run(
    shop: Shop, tmp_path: Path
) -> None:
    pex, root = tmp_path / "app.pex", tmp_path / "pex root"
    _build_pex(shop, pex)
    before = _assets(pex, root)
    assert "products/tea_assam" in before
    assert "products/brand_new" not in before
    shop.vendor.catalogs["products"] = [
        *shop.vendor.catalogs["products"],
        {"id": "brand-new", "name": "Brand new"},
    ]
    done = shop.run("update", pex, "--key", PRODUCTS, "--format", "json")
    assert json.loads(done.stdout)["changed"] is True
    assert _assets(pex, root) == before | {"products/brand_new"}
    again = shop.run("update", pex, "--key", PRODUCTS, "--format", "json")
    assert json.loads(again.stdout)["changed"] is False


def test_the_same_state_makes_the_identical_pex_and_image(shop: Shop, tmp_path: Path) -> None:
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    for number in ("1", "2"):
        folder = tmp_path / number
        folder.mkdir()
        _build_pex(shop, folder / "app.pex", epoch)
        arguments = ("build", "oci", "--refresh", "missing", "-o", folder / "image")
        shop.run(*arguments, env=epoch)
    assert (tmp_path / "1" / "app.pex").read_bytes() == (tmp_path / "2" / "app.pex").read_bytes()
    assert snapshot(tmp_path / "1" / "image") == snapshot(tmp_path / "2" / "image")


def test_without_an_epoch_the_layer_is_identical_all_the_same(shop: Shop, tmp_path: Path) -> None:
    layers = []
    for number in ("1", "2"):
        target = tmp_path / number
        shop.run("build", "oci", "--refresh", "missing", "-o", target, "--environment", number)
        blobs = target / "blobs" / "sha256"
        index = json.loads((target / "index.json").read_bytes())
        manifest = index["manifests"][0]["digest"].removeprefix("sha256:")
        layers.append(json.loads((blobs / manifest).read_bytes())["layers"])
    assert layers[0] == layers[1]
    assert (tmp_path / "1" / "index.json").read_bytes() != (
        tmp_path / "2" / "index.json"
    ).read_bytes()


# --- verify, status, extract ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("artifacts")
    _build_pex(shop, folder / "app.pex")
    shop.run("build", "oci", "--refresh", "missing", "-o", folder / "image")
    return {
        "pex": str(folder / "app.pex"),
        "oci": f"oci:{folder / 'image'}",
        "directory": str(shop.sample.root),
    }


@pytest.mark.parametrize("kind", ["pex", "oci", "directory"])
def test_each_artifact_verifies_and_reports_its_keys(
    shop: Shop, artifacts: dict[str, str], kind: str, tmp_path: Path
) -> None:
    shop.run("verify", artifacts[kind])
    reported = json.loads(shop.run("status", artifacts[kind], "--format", "json").stdout)
    (artifact,) = reported["artifacts"]
    keys = {key["key"]: key for key in artifact["keys"]}
    assert keys[PRODUCTS]["managementType"] == "LOCAL_FILESYSTEM"
    assert keys[PRODUCTS]["refresh"]["fetched"].startswith("20")
    assert keys["VendorCatalog[suppliers]"]["managementType"] == "VERSIONED_STATE_STORAGE"
    assert keys["ShopCalendar[2026]"]["managementType"] == "LEGACY_CODE_SERVER_SNAPSHOTS"
    shop.run("extract", artifacts[kind], "-o", tmp_path / "out")
    (manifest,) = (tmp_path / "out").rglob("@manifest.json")
    assert manifest.read_bytes() == (shop.sample.state_directory / "@manifest.json").read_bytes()


def test_status_of_the_project_lists_every_key(shop: Shop) -> None:
    shown = shop.run("status").stdout
    for key in (PRODUCTS, "DbtProjectComponent[warehouse]", "ShopCalendar[2026]"):
        assert key in shown


def test_a_flipped_byte_in_a_project_is_76_and_names_the_file(shop: Shop) -> None:
    state = shop.sample.state_directory / "VendorCatalog__products__" / "state"
    good = state.read_bytes()
    state.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    try:
        done = shop.run("verify", shop.sample.root, code=76)
        assert "VendorCatalog__products__/state was altered" in done.stderr
    finally:
        state.write_bytes(good)


def test_a_pex_with_a_flipped_byte_of_state_is_76_and_names_the_file(
    shop: Shop, artifacts: dict[str, str], tmp_path: Path
) -> None:
    """The byte is changed as an attacker would: the zip is sound, pex's own hash unchanged."""
    import zipfile

    altered = tmp_path / "altered.pex"
    with zipfile.ZipFile(artifacts["pex"]) as old, zipfile.ZipFile(altered, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("VendorCatalog__products__/state"):
                data = bytes([data[0] ^ 1]) + data[1:]
            new.writestr(entry, data)
    done = shop.run("verify", altered, code=76)
    assert "VendorCatalog__products__/state was altered" in done.stderr


@pytest.mark.parametrize("kind", ["pex", "oci"])
def test_a_damaged_artifact_is_an_error(
    shop: Shop, artifacts: dict[str, str], kind: str, tmp_path: Path
) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    if kind == "pex":
        raw = Path(artifacts["pex"]).read_bytes()
        damaged.write_bytes(raw[: len(raw) // 2])
        shop.run("verify", damaged, code=76)
        return
    shutil.copytree(artifacts["oci"].removeprefix("oci:"), damaged)
    blob = max((damaged / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    raw = bytearray(blob.read_bytes())
    raw[len(raw) // 2] ^= 1
    blob.write_bytes(raw)
    shop.run("verify", f"oci:{damaged}", code=76)
