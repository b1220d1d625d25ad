"""The sample project into a real image by ``Dockerfile.example``, through the installed commands.

One build serves all tests here: real uv, real dagster and dbt in the image, no network when it
runs. Later images are made of it by ``update``, or by a build that finds every layer in the cache.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import sample as sample_module
from tests.support.engine import PYTHON_BASE, Engine, make_uv_image
from tests.support.environments import ROOT
from tests.support.sample import Sample
from tests.support.vendor import RecordedVendor

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent
IMAGE = "sbt/shop:1"
PRODUCTS = "VendorCatalog[products]"
STATE = "/app/.venv/lib/python3.11/site-packages/shop/defs/.local_defs_state"
# Loads the code location as a code server does; materialises what it is given.
PROBE = """
import json, sys
from dagster import AssetKey, DagsterInstance
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext, DefinitionsLoadType,
)
DefinitionsLoadContext.set(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION))
with DagsterInstance.get() as instance:
    from shop.definitions import defs
    loaded = defs()
    keys = [spec.key.to_user_string() for spec in loaded.resolve_all_asset_specs()]
    print("ASSETS", json.dumps(sorted(keys)))
    if sys.argv[1:]:
        job = loaded.resolve_implicit_global_asset_job_def()
        selection = [AssetKey(key) for key in sys.argv[1:]]
        done = job.execute_in_process(instance=instance, asset_selection=selection)
        print("MATERIALISED", done.success)
"""


@dataclass(frozen=True)
class Shop:
    """The sample project, its vendor, and the engine that has its image."""

    sample: Sample
    vendor: RecordedVendor
    engine: Engine

    def run(
        self, *argv: str | Path, code: int = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.engine.environment,
            "STATE_BUNDLER_DOCKER": self.engine.clis[0],
            "DOCKER_BUILDKIT": "1",
            **(env or {}),
        }
        done = self.sample.run(*argv, check=False, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def bundler(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(BIN / "state-bundler", *arguments, code=code)

    def contained(self, image: str, *argv: str, stdin: str = "") -> str:
        """Runs a program in a container without network."""
        done = self.engine.docker(
            "run", "--rm", "-i", "--network=none", "--env=SHOP_WAREHOUSE=/tmp/shop.duckdb",
            "--env=DAGSTER_DISABLE_TELEMETRY=true", image, *argv, stdin=stdin.encode(),
        )  # fmt: skip
        return done.stdout.decode()

    def assets(self, image: str) -> set[str]:
        done = self.engine.docker(
            "run", "--rm", "-i", "--network=none", "--read-only", "--tmpfs=/tmp", image,
            "python", "-", stdin=PROBE.encode(),
        )  # fmt: skip
        (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("ASSETS")]
        return set(json.loads(line.removeprefix("ASSETS")))

    def images(self) -> set[str]:
        ask = ("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
        return set(self.engine.docker(*ask).stdout.decode().splitlines())


BUILD = ("--build-arg", f"PYTHON={PYTHON_BASE}", "-t", IMAGE, ".")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Shop]:
    uv_image = make_uv_image(engine)
    with RecordedVendor() as vendor:
        root = tmp_path_factory.mktemp("docker whole way") / "shop"
        sample = sample_module.make_repository(root, vendor.environment)
        text = (ROOT / "Dockerfile.example").read_text()
        (root / "Dockerfile").write_text(text.replace("ghcr.io/astral-sh/uv:0.9", uv_image))
        (root / ".dockerignore").write_text("**/.*\n")
        subprocess.run([sys.executable, "-m", "uv", "lock", "--quiet"], cwd=root, check=True)
        sample.git("add", "--all")
        sample.git("commit", "--quiet", "--message=Docker")
        shop = Shop(sample, vendor, engine)
        shop.bundler("build", "docker", *BUILD)
        yield shop


@pytest.fixture(autouse=True)
def _as_it_was(shop: Shop) -> Iterator[None]:
    before = dict(shop.vendor.catalogs)
    yield
    shop.vendor.catalogs.clear()
    shop.vendor.catalogs.update(before)
    shop.vendor.start()


def test_the_code_location_loads_with_its_assets_and_dbt_runs(shop: Shop) -> None:
    said = shop.contained(
        IMAGE,
        "sh",
        "-c",
        f"cat > /tmp/probe.py && id -u && python /tmp/probe.py raw_orders orders 2>&1"
        f" && ls {STATE}/Dbt*/project/target && python {STATE}/@verify.py && echo VERIFIED",
        stdin=PROBE,
    )
    lines = said.splitlines()
    assert lines[0] == "10001"
    assert "MATERIALISED True" in lines
    assert lines[-1] == "VERIFIED"
    assets = next(line for line in lines if line.startswith("ASSETS"))
    assert {"orders", "raw_orders", "products/kettle_assam"} < set(json.loads(assets[7:]))


def test_the_image_is_an_artifact_like_any_other(shop: Shop, tmp_path: Path) -> None:
    name = f"docker-daemon:{IMAGE}"
    shop.bundler("verify", name)
    status = json.loads(shop.bundler("status", name, "--format", "json").stdout)
    assert PRODUCTS in json.dumps(status)
    shop.bundler("extract", name, "-o", str(tmp_path / "out"))
    found = {path.name for path in (tmp_path / "out").rglob("state")}
    assert found == {"state"}


def test_an_update_that_would_lose_definitions_makes_no_image(shop: Shop) -> None:
    """What IMAGE has now is loaded as well; that a build loads, `test_demo` has."""
    before = shop.images()
    shop.vendor.catalogs["products"] = shop.vendor.catalogs["products"][:-1]
    update = ("update", IMAGE, "--key", PRODUCTS, "--allow-shrink", PRODUCTS, "--load-check")
    said = shop.bundler(*update, code=76).stderr
    assert re.search(r"loads only \d+ assets.*the current artifact of that name has \d+", said), (
        said
    )
    assert shop.images() == before


def test_a_pod_starts_its_code_server_behind_the_load(shop: Shop) -> None:
    """``@verify.py --load`` as an entrypoint: what it starts answers, or is never started."""
    guarded = ["python", f"{STATE}/@verify.py", "--load", "shop.definitions"]
    server = ["dagster", "api", "grpc", "-m", "shop.definitions", "-p", "4000"]
    docker = shop.engine.docker
    options = ["--network=none", "--read-only", "--tmpfs=/tmp"]
    pod = docker("run", "--detach", *options, IMAGE, *guarded, *server).stdout.decode().strip()
    try:
        connect = "import socket; socket.create_connection(('127.0.0.1', 4000), 1)"
        deadline = time.monotonic() + 120
        while docker("exec", pod, "python", "-c", connect, check=False).returncode:
            logs = docker("logs", pod).stderr.decode()
            assert _runs(shop, pod), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.5)
        health = ("exec", pod, "dagster", "api", "grpc-health-check", "-p", "4000")
        assert docker(*health, check=False).returncode == 0, docker("logs", pod).stderr.decode()
        # It has become the server: nothing of ours is in between.
        words = docker("exec", pod, "cat", "/proc/1/cmdline").stdout.split(b"\0")
        assert words[1:4] == [b"/app/.venv/bin/dagster", b"api", b"grpc"]
    finally:
        docker("rm", "--force", pod)
    lost = f"rm -r {STATE}/Vendor* && exec {' '.join(guarded)} echo started"
    run = ("run", "--rm", "--user=0", "--network=none", IMAGE, "sh", "-c", lost)
    refused = docker(*run, check=False)
    assert (refused.returncode, refused.stdout) == (76, b"")
    assert b"state is missing" in refused.stderr


def _runs(shop: Shop, container: str) -> bool:
    ask = ("inspect", "--format", "{{.State.Running}}", container)
    return shop.engine.docker(*ask).stdout.strip() == b"true"


def test_update_makes_a_new_tag_and_nothing_for_the_same_state(shop: Shop) -> None:
    before = shop.images()
    products = shop.vendor.catalogs["products"]
    shop.vendor.catalogs["products"] = [*products, {"id": "brand-new", "name": "Brand new"}]
    update = ("update", IMAGE, "--key", PRODUCTS, "--format", "json")
    made = json.loads(shop.bundler(*update).stdout)
    again = json.loads(shop.bundler("update", made["image"], *update[2:]).stdout)

    assert made["changed"]
    assert (again["changed"], again["image"]) == (False, made["image"])
    assert made["image"].startswith(f"{IMAGE}-s")
    new = shop.images() - before
    assert new == {f"{made['image']} {made['digest']}"}
    assert before <= shop.images()
    assert "products/brand_new" in shop.assets(made["image"])


def test_an_outage_changes_no_image(shop: Shop) -> None:
    before = shop.images()
    shop.vendor.stop()
    done = shop.bundler("build", "docker", "--key", PRODUCTS, *BUILD, code=69)
    assert PRODUCTS in done.stderr
    assert "Building with" not in done.stderr
    shop.bundler("update", IMAGE, "--key", PRODUCTS, code=69)
    assert shop.images() == before


def test_docker_bundle_build_finds_every_layer_and_says_only_the_id(
    shop: Shop, tmp_path: Path
) -> None:
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-bundle").symlink_to(BIN / "docker-bundle")
    build = ("bundle", "build", "--bundle-refresh", "missing", *BUILD)
    environment = {"DOCKER_CONFIG": str(plugins.parent)}
    quiet = shop.run(shop.engine.clis[0], *build[:-1], "-q", ".", env=environment)
    assert f"{IMAGE} {quiet.stdout.strip()}" in shop.images()
    assert quiet.stdout.startswith("sha256:")
    said = shop.run(shop.engine.clis[0], *build, env=environment).stderr
    assert said.count(" CACHED") == 9, said


def test_the_plugin_with_an_unknown_option_fails_as_docker_does(shop: Shop) -> None:
    before = shop.images()
    plain = shutil.which("docker-bundle", path=str(BIN))
    assert plain is not None
    build = ("bundle", "build", "--bundle-refresh", "missing", "--no-such-option", *BUILD)
    assert "unknown flag" in shop.run(plain, *build, code=125).stderr
    assert shop.images() == before
