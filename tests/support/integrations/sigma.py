"""Sigma's API v2. Its base URL is the user's, so the path before ``/v2`` is the case.

The library reads lists with aiohttp, which ignores proxies, and gets its token with requests: so
this stand-in is reached directly. Lists come in pages; a ``nextPage`` leads to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_TOKEN = "canary-sigma-access-token"
_SECRET = "canary-sigma-client-secret-0123456789"
_WORKBOOK = "/v2/workbooks/{workbook}"
_PAGE = f"{_WORKBOOK}/pages/{{page}}"
_ELEMENT = f"{_WORKBOOK}/elements/{{element}}"


def _login(request: Request) -> Any:
    if request.form.get("client_secret") != _SECRET:
        return Answer({"code": "unauthorized", "message": "Invalid client"}, 401)
    token = f"{_TOKEN}-{request.case.name}"
    return {"access_token": token, "token_type": "bearer", "expires_in": 3599}


def _page_of(request: Request) -> int:
    return int(request.query.get("page", 1))


def _paged(items: Sequence[dict[str, Any]], request: Request) -> dict[str, Any]:
    """A third of a long list a page; short ones come whole."""
    asked = int(request.query.get("limit", 50))
    size = min(asked, max(2, request.case.size // 3)) if len(items) > 3 else asked
    number = _page_of(request)
    entries = list(items[(number - 1) * size : number * size])
    more = number * size < len(items)
    following = {"nextPage": str(number + 1)} if more else {"nextPage": None}
    return {"entries": entries, "total": len(items), "hasMore": more, **following}


def _nothing(_: Request) -> dict[str, Any]:
    return {"entries": [], "total": 0, "hasMore": False, "nextPage": None}


def _workbooks(request: Request) -> dict[str, Any]:
    items = [
        {
            "workbookId": f"workbook-{number}",
            "workbookUrlId": f"w{number}",
            "createdBy": "member-1",
            "updatedBy": "member-1",
            "createdAt": "2025-01-10T08:00:00.000Z",
            "updatedAt": "2025-11-02T08:00:00.000Z",
            "name": f"Workbook {number}",
            "url": f"https://app.sigmacomputing.com/acme/workbook/w{number}",
            "path": "Acme/Analytics",
            "latestVersion": 3,
        }
        for number in range(request.case.size)
    ]
    return _paged(items, request)


def _datasets(request: Request) -> dict[str, Any]:
    items = [
        {
            "datasetId": f"dataset-{number}",
            "createdBy": "member-1",
            "updatedBy": "member-1",
            "createdAt": "2025-01-10T08:00:00.000Z",
            "updatedAt": "2025-11-02T08:00:00.000Z",
            "name": f"Dataset {number}",
            "description": "",
            "url": f"https://app.sigmacomputing.com/acme/b/d{number}",
        }
        for number in range(request.case.size)
    ]
    return _paged(items, request)


def _tables(request: Request) -> dict[str, Any]:
    items = [
        {
            "id": f"table-{number}",
            "urlId": f"t{number}",
            "name": f"ORDERS_{number}",
            "type": "table",
            "parentId": "schema-1",
            "path": "Connections/ANALYTICS/PUBLIC",
            "ownerId": "member-1",
        }
        for number in range(request.case.size)
    ]
    return _paged(items, request)


def _pages(request: Request) -> dict[str, Any]:
    return _paged([{"pageId": "page-1", "name": "Page 1"}], request)


def _elements(request: Request) -> dict[str, Any]:
    number = request.parts["workbook"].rpartition("-")[2]
    items = [
        {"elementId": f"element-{number}-{element}", "name": f"Table {element}", "type": "table"}
        for element in range(2)
    ]
    return _paged(items, request)


def _lineage(request: Request) -> dict[str, Any]:
    _, number, _ = request.parts["element"].split("-")
    element = f"element-{number}"
    return {
        "dependencies": {
            element: {"nodeId": element, "type": "sheet", "name": "Table"},
            f"inode-d{number}": {"nodeId": f"inode-d{number}", "type": "dataset", "name": "D"},
            f"inode-t{number}": {"nodeId": f"inode-t{number}", "type": "table", "name": "T"},
        },
        "edges": [{"source": f"inode-d{number}", "target": element, "type": "source"}],
    }


def _columns(request: Request) -> dict[str, Any]:
    _, number, _ = request.parts["element"].split("-")
    names = ("Order Id", "Amount")
    items = [{"columnId": f"inode-d{number}/{name}", "label": name} for name in names]
    return _paged(items, request)


def _more(request: Request) -> dict[str, Any]:
    """The first of two pages: the library asks for no second one."""
    return {**_columns(request), "hasMore": True, "nextPage": "2"}


def _queries(request: Request) -> dict[str, Any]:
    number = request.parts["workbook"].rpartition("-")[2]
    sql = f'select "Order Id" from ANALYTICS.PUBLIC.ORDERS_{number} where "OWNER" is not null'
    items = [{"elementId": f"element-{number}-0", "name": "Table 0", "sql": sql}]
    return _paged(items, request)


def _schedules(request: Request) -> dict[str, Any]:
    number = request.parts["workbook"].rpartition("-")[2]
    cron = {"cronSpec": "0 8 * * *", "timezone": "Etc/UTC"}
    items = [{"sheetId": f"sheet-{number}", "elementName": "Table 0", "schedule": cron}]
    return _paged(items, request)


class Sigma(StandIn):
    """One base URL a case: ``<url>/<case>``."""

    name = "sigma"
    integration = "dagster-sigma"
    hosts = (r"127\.0\.0\.1",)
    variables: ClassVar = {
        "SIGMA_CLIENT_ID": "canary-sigma-client-id",
        "SIGMA_CLIENT_SECRET": _SECRET,
    }
    endpoints = (
        Endpoint("login", "POST", "/v2/auth/token", _login, signed_in=False),
        Endpoint(
            "workbooks", "GET", "/v2/workbooks", _workbooks, empty=_nothing, page=_page_of
        ),
        Endpoint("pages", "GET", f"{_WORKBOOK}/pages", _pages, empty=_nothing),
        Endpoint("elements", "GET", f"{_PAGE}/elements", _elements, empty=_nothing),
        Endpoint(
            "lineage", "GET", f"{_WORKBOOK}/lineage/elements/{{element}}", _lineage,
            empty=lambda _: {"dependencies": {}, "edges": []},
        ),
        Endpoint(
            "columns", "GET", f"{_ELEMENT}/columns", _columns, empty=_nothing, own={"more": _more}
        ),
        Endpoint("queries", "GET", f"{_WORKBOOK}/queries", _queries, empty=_nothing),
        Endpoint(
            "schedules", "GET", f"{_WORKBOOK}/materialization-schedules", _schedules,
            empty=_nothing,
        ),
        Endpoint("datasets", "GET", "/v2/datasets", _datasets, empty=_nothing, page=_page_of),
        Endpoint("tables", "GET", "/v2/files", _tables, empty=_nothing, page=_page_of),
    )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**super().environment, **direct, "SIGMA_BASE_URL": f"{self.url}/acme"}

    def case_of(self, request: Request) -> str:
        return request.path.partition("/")[2].partition("/")[0]

    def path_of(self, request: Request) -> str:
        return f"/{request.path.split('/', 2)[2]}"

    def refusal(self, request: Request, status: int) -> Answer:
        return Answer({"requestId": "r-1", "message": "Refused", "code": f"e{status}"}, status)

    def is_signed_in(self, request: Request) -> bool:
        return request.bearer == f"{_TOKEN}-{request.case.name}"

    def key(self, case: Case) -> str:
        return f"{case.subclass}SigmaComponent[{self.url}/{case.name}]"

    def host(self, case: Case, endpoint: str) -> str:
        return self.url.partition("://")[2]

    def component(self, case: Case) -> str:
        return f"""
type: dagster_sigma.SigmaComponent
attributes:
  organization:
    base_url: {self.url}/{case.name}
    client_id: "{{{{ env.SIGMA_CLIENT_ID }}}}"
    client_secret: "{{{{ env.SIGMA_CLIENT_SECRET }}}}"
    warn_on_lineage_fetch_error: {str(case.name.startswith("lenient")).lower()}
"""

    def assets(self, case: Case) -> set[str]:
        return {
            name
            for number in range(case.size)
            for name in (f"Workbook_{number}", f"Dataset_{number}")
        }
