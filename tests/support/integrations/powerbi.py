"""Power BI's REST API and Microsoft's login: two fixed hosts; a case is known by its ids.

A workspace is read by a scan of the administrators' API (the default), or by a request for each
thing in it. The scan takes a while: its status is asked for until it says ``Succeeded``.
"""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_API = "api.powerbi.com/v1.0/myorg"
_ADMIN = f"{_API}/admin/workspaces"
_GROUP = f"{_API}/groups/{{workspace}}"
_LOGIN = "login.microsoftonline.com"
_TOKEN = "canary-powerbi-access-token"
_SECRET = "canary-powerbi-client-secret-0123456789"
_CONTEXT = "http://api.powerbi.com/v1.0/myorg/groups/x/$metadata"
_ONE_BY_ONE = ("dashboards", "tiles", "reports", "datasets", "data-sources")
_ROUNDS = 3


def identifier(*parts: object) -> str:
    """The id of something."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(map(str, parts))))


def _login(request: Request) -> Any:
    if request.form.get("client_secret") != _SECRET:
        return Answer({"error": "invalid_client", "error_codes": [7000215]}, 401)
    return {
        "token_type": "Bearer",
        "expires_in": "3599",
        "resource": "https://analysis.windows.net/powerbi/api",
        "access_token": f"{_TOKEN}-{request.case.name}",
    }


# --- the scan -----------------------------------------------------------------------------------


def _scan(request: Request) -> Answer:
    return Answer({**_scan_of(request), "status": "NotStarted"}, 202)


def _scan_status(request: Request) -> dict[str, Any]:
    scans = PowerBI.rounds
    scans[request.case.name] = scans.get(request.case.name, 0) + 1
    done = scans[request.case.name] % _ROUNDS == 0
    return {**_scan_of(request), "status": "Succeeded" if done else "Running"}


def _scan_of(request: Request) -> dict[str, str]:
    return {
        "id": identifier("scan", request.case.name),
        "createdDateTime": "2025-11-02T08:00:00.0000000Z",
    }


def _workspace(request: Request, *, empty: bool = False) -> dict[str, Any]:
    numbers = range(0 if empty else request.case.size)
    return {
        "workspaces": [
            {
                "id": identifier("workspace", request.case.name),
                "name": "Sales",
                "type": "Workspace",
                "state": "Active",
                "reports": [_report(number) for number in numbers],
                "dashboards": [
                    {**_dashboard(number), "tiles": [_tile(number)]} for number in numbers
                ],
                "datasets": [
                    {**_dataset(number), "tables": [_table(number)]} for number in numbers
                ],
                "dataflows": [],
                "datamarts": [],
            }
        ],
        "datasourceInstances": [_source(number) for number in numbers],
    }


def _report(number: int) -> dict[str, Any]:
    return {
        "reportType": "PowerBIReport",
        "id": identifier("report", number),
        "name": f"Report {number}",
        "datasetId": identifier("dataset", number),
        "createdBy": "ada@example.com",
        "createdDateTime": "2025-01-10T08:00:00.000",
        "webUrl": f"https://app.powerbi.com/groups/x/reports/{number}",
    }


def _dashboard(number: int) -> dict[str, Any]:
    return {
        "id": identifier("dashboard", number),
        "displayName": f"Dashboard {number}.pbix",
        "isReadOnly": False,
    }


def _tile(number: int) -> dict[str, Any]:
    return {
        "id": identifier("tile", number),
        "title": f"Tile {number}",
        "reportId": identifier("report", number),
        "datasetId": identifier("dataset", number),
    }


def _dataset(number: int) -> dict[str, Any]:
    return {
        "id": identifier("dataset", number),
        "name": f"Model {number}",
        "configuredBy": "ada@example.com",
        "targetStorageMode": "Abf",
        "isRefreshable": True,
    }


def _table(number: int) -> dict[str, Any]:
    """With an M expression, which may hold whatever its author has put into it."""
    expression = (
        'let Source = Snowflake.Databases("acme.eu-west-1.snowflakecomputing.com", "WH"), '
        'DB = Source{[Name="ANALYTICS",Kind="Database"]}[Data], '
        'S = DB{[Name="PUBLIC",Kind="Schema"]}[Data], '
        f'T = S{{[Name="ORDERS_{number}",Kind="Table"]}}[Data] in T'
    )
    if number == 1:
        expression = (
            'let Source = Odbc.DataSource("Driver={PostgreSQL};Server=db.internal.example;'
            'Uid=report;Pwd=canary-in-an-expression") in Source'
        )
    return {
        "name": f"ORDERS_{number}",
        "columns": [
            {"name": "Order ID", "dataType": "Int64"},
            {"name": "Amount", "dataType": "Double"},
        ],
        "measures": [],
        "isHidden": False,
        "source": [{"expression": expression}],
    }


# --- one by one ---------------------------------------------------------------------------------


def _list(make: Any) -> Any:
    def answer(request: Request) -> dict[str, Any]:
        items = [make(number) for number in range(request.case.size)]
        return {"@odata.context": _CONTEXT, "value": items}

    return answer


def _nothing(_: Request) -> dict[str, Any]:
    return {"@odata.context": _CONTEXT, "value": []}


def _more(request: Request) -> dict[str, Any]:
    """The first of two pages: the library asks for no second one."""
    following = f"https://api.powerbi.com{request.path}?$skip=100"
    return {**_list(_report)(request), "@odata.nextLink": following}


def _number(request: Request, kind: str) -> int:
    ids = [identifier(kind, number) for number in range(request.case.size)]
    return ids.index(request.parts["item"])


def _tiles(request: Request) -> dict[str, Any]:
    return {"@odata.context": _CONTEXT, "value": [_tile(_number(request, "dashboard"))]}


def _sources(request: Request) -> dict[str, Any]:
    return {"@odata.context": _CONTEXT, "value": [_source(_number(request, "dataset"))]}


def _source(number: int) -> dict[str, Any]:
    return {
        "datasourceType": "Sql",
        "connectionDetails": {"server": "sql.internal.example", "database": f"warehouse_{number}"},
        "datasourceId": identifier("source", number),
        "gatewayId": identifier("gateway", 1),
    }


class PowerBI(StandIn):
    """One workspace of one tenant a case."""

    name = "powerbi"
    title = "Power BI"
    integration = "dagster-powerbi"
    hosts = (r"api\.powerbi\.com", r"login\.microsoftonline\.com")
    # How often the status of a case's scan was asked for.
    rounds: ClassVar[dict[str, int]] = {}
    variables: ClassVar = {
        "POWERBI_CLIENT_ID": "c0000000-0000-4000-8000-000000000001",
        "POWERBI_CLIENT_SECRET": _SECRET,
    }
    endpoints = (
        Endpoint("login", "POST", f"{_LOGIN}/{{tenant}}/oauth2/token", _login, signed_in=False),
        Endpoint("scan", "POST", f"{_ADMIN}/getInfo", _scan),
        Endpoint("scan-status", "GET", f"{_ADMIN}/scanStatus/{{scan}}", _scan_status),
        Endpoint(
            "scan-result", "GET", f"{_ADMIN}/scanResult/{{scan}}", _workspace,
            empty=lambda request: _workspace(request, empty=True),
        ),
        Endpoint("dashboards", "GET", f"{_GROUP}/dashboards", _list(_dashboard), empty=_nothing),
        Endpoint("tiles", "GET", f"{_GROUP}/dashboards/{{item}}/tiles", _tiles, empty=_nothing),
        Endpoint(
            "reports", "GET", f"{_GROUP}/reports", _list(_report), empty=_nothing,
            own={"more": _more},
        ),
        Endpoint("datasets", "GET", f"{_GROUP}/datasets", _list(_dataset), empty=_nothing),
        Endpoint(
            "data-sources", "GET", f"{_GROUP}/datasets/{{item}}/datasources", _sources,
            empty=_nothing,
        ),
    )  # fmt: skip

    @cached_property
    def _by_id(self) -> dict[str, str]:
        kinds = ("tenant", "workspace", "scan")
        return {identifier(kind, name): name for name in self.cases for kind in kinds}

    def case_of(self, request: Request) -> str:
        """By the tenant, the workspace or the scan, of which each case has one."""
        words = request.path.split("/")
        words += request.json.get("workspaces", []) if request.path.endswith("getInfo") else []
        return next((self._by_id[word] for word in words if word in self._by_id), "")

    def refusal(self, request: Request, status: int) -> Answer:
        if request.host == _LOGIN:
            return Answer({"error": "invalid_client", "error_codes": [7000215]}, status)
        return Answer({"error": {"code": f"PowerBI{status}", "pbi.error": {"code": "x"}}}, status)

    def is_signed_in(self, request: Request) -> bool:
        return request.bearer == f"{_TOKEN}-{request.case.name}"

    def key(self, case: Case) -> str:
        return f"{case.subclass}PowerBIWorkspaceComponent[{identifier('workspace', case.name)}]"

    def host(self, case: Case, endpoint: str) -> str:
        return _LOGIN if endpoint in ("login", "*") else "api.powerbi.com"

    def component(self, case: Case) -> str:
        one_by_one = case.endpoint in _ONE_BY_ONE or case.name.endswith("one-by-one")
        return f"""
type: dagster_powerbi.PowerBIWorkspaceComponent
attributes:
  workspace:
    credentials:
      client_id: "{{{{ env.POWERBI_CLIENT_ID }}}}"
      client_secret: "{{{{ env.POWERBI_CLIENT_SECRET }}}}"
      tenant_id: {identifier("tenant", case.name)}
    workspace_id: {identifier("workspace", case.name)}
  use_workspace_scan: {str(not one_by_one).lower()}
"""

    def assets(self, case: Case) -> set[str]:
        found: set[str] = set()
        for number in range(case.size):
            found |= {f"dashboard/Dashboard_{number}", f"report/Report_{number}"}
            found.add(f"semantic_model/Model_{number}")
        return found
