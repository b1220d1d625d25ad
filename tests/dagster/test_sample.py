"""The sample project loads in a real Dagster; the vendor's API does what the tests rely on."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from bundler.setup.demo.vendor import TOKEN
from tests.support.sample import Sample
from tests.support.vendor import RecordedVendor, VendorRequest


def _get(api: RecordedVendor, target: str, token: str = TOKEN) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=5)
    try:
        connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_dagster_loads_the_sample_and_says_which_components_have_state(sample: Sample) -> None:
    script = (
        "import json, dagster as dg, pathlib\n"
        "tree = dg.ComponentTree.for_project(pathlib.Path.cwd())\n"
        "found = tree.get_all_components(of_type=dg.StateBackedComponent)\n"
        "configs = [component.defs_state_config for component in found]\n"
        "print(json.dumps({c.key: c.management_type.value for c in configs}))\n"
    )
    assert json.loads(sample.run(sample.python, "-c", script).stdout) == {
        "VendorCatalog[products]": "LOCAL_FILESYSTEM",
        "DbtProjectComponent[warehouse]": "LOCAL_FILESYSTEM",
        "VendorCatalog[suppliers]": "VERSIONED_STATE_STORAGE",
        "ShopCalendar[2026]": "LEGACY_CODE_SERVER_SNAPSHOTS",
    }


def test_git_does_not_see_what_a_refresh_writes(sample: Sample) -> None:
    key_directory = sample.state_directory / "VendorCatalog__products__"
    key_directory.mkdir(parents=True)
    (key_directory / "state").write_text("[]")
    assert sample.git("status", "--porcelain", "--untracked-files=all") == ""


def test_the_api_gives_every_item_once_over_its_pages(vendor: RecordedVendor) -> None:
    page: int | None = 1
    identities = []
    while page is not None:
        status, body = _get(vendor, f"/v1/products?page={page}")
        assert status == 200
        answer = json.loads(body)
        assert answer["total"] == 25
        identities += [item["id"] for item in answer["items"]]
        page = answer["next"]
    assert len(set(identities)) == len(identities) == 25
    assert [request.target[-1] for request in vendor.requests] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("target", "token", "status"),
    [
        ("/v1/products", "another", 401),
        ("/v1/nothing", TOKEN, 404),
        ("/v1/products?page=0", TOKEN, 404),
        ("/v1/products?page=x", TOKEN, 404),
    ],
)
def test_the_api_refuses(vendor: RecordedVendor, target: str, token: str, status: int) -> None:
    assert _get(vendor, target, token)[0] == status
    assert vendor.requests == [VendorRequest(target, status)]


def test_a_fault_strikes_the_path_it_names_and_no_other(vendor: RecordedVendor) -> None:
    vendor.faults["/v1/products"] = 500
    assert _get(vendor, "/v1/products?page=1")[0] == 500
    assert _get(vendor, "/v1/suppliers")[0] == 200
    vendor.faults.clear()
    assert _get(vendor, "/v1/products?page=1")[0] == 200


def test_a_stopped_api_refuses_connections_until_it_is_started_at_the_same_address(
    vendor: RecordedVendor,
) -> None:
    url = vendor.url
    vendor.stop()
    with pytest.raises(ConnectionRefusedError):
        _get(vendor, "/v1/products")
    vendor.start()
    assert vendor.url == url
    assert _get(vendor, "/v1/products")[0] == 200
