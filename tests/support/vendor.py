"""The demo's vendor API, which also records its requests and can be made to fail."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from bundler.setup.demo.vendor import VendorApi


class VendorRequest(NamedTuple):
    """target: with the query. status: of the answer."""

    target: str
    status: int


class RecordedVendor(VendorApi):
    """faults: the status of every answer, by a path such as ``/v1/products``."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, int] = {}
        self.requests: list[VendorRequest] = []

    def answer(self, target: str, authorization: str | None) -> tuple[int, dict[str, object]]:
        status, body = super().answer(target, authorization)
        status = self.faults.get(urlsplit(target).path, status)
        self.requests.append(VendorRequest(target, status))
        return status, body
