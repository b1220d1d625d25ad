"""Tableau Cloud's REST API (XML) and its Metadata API (GraphQL), as the connected app sees them.

Paging, errors and the session's header are those of Tableau's REST API reference. The library asks
for pages of 100; what is answered is at most a third of the site, so that there are three pages.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_TIMES = 'createdAt="2025-01-10T08:00:00Z" updatedAt="2025-11-02T08:00:00Z"'
_CODES = {
    400: "400000",
    401: "401002",
    403: "403004",
    404: "404006",
    429: "429000",
    500: "500000",
    503: "503000",
}
_SECRET = "canary-tableau-secret-value-0123456789"
_SESSION = "canary-tableau-session"
_SITES = "/api/{version}/sites/{site}"


def _xml(content: str) -> Answer:
    text = f'<?xml version="1.0"?><tsResponse xmlns="http://tableau.com/api">{content}</tsResponse>'
    return Answer(text.encode(), kind="application/xml;charset=UTF-8")


def identifier(*parts: object) -> str:
    """The LUID of something."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


# --- the REST API -------------------------------------------------------------------------------


def _server_info(_: Request) -> Answer:
    version = '<productVersion build="20251.25.0314.1423">2025.1.0</productVersion>'
    api = "<restApiVersion>3.24</restApiVersion>"
    return _xml(f"<serverInfo>{version}{api}</serverInfo>")


def _sign_in(request: Request) -> Answer:
    if request.parts["version"] != "3.24":  # older ones do not know a connected app's token
        return Tableau.refused(400)
    site = request.body.decode().partition('contentUrl="')[2].partition('"')[0]
    if not _is_signed_token(request.body.decode()):
        return Tableau.refused(401)
    token = f"{_SESSION}|{request.case.name}"
    return _xml(
        f'<credentials token="{token}" estimatedTimeToExpiration="115:59:59">'
        f'<site id="{identifier("site", request.case.name)}" contentUrl={quoteattr(site)}/>'
        f'<user id="{identifier("user", 1)}"/></credentials>'
    )


def _is_signed_token(body: str) -> bool:
    """Whether the connected app's token is for Tableau and can read content."""
    token = body.partition('jwt="')[2].partition('"')[0]
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    if not claims:
        return False
    reported = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return bool(reported["aud"] == "tableau" and "tableau:content:read" in reported["scp"])


def _page_of(request: Request) -> int:
    return int(request.query.get("pageNumber", 1))


def _page(request: Request, total: int) -> tuple[str, range]:
    size = min(int(request.query.get("pageSize", 100)), max(2, request.case.size // 3))
    number = _page_of(request)
    first = min((number - 1) * size, total)
    reported = f'<pagination pageNumber="{number}" pageSize="{size}" totalAvailable="{total}"/>'
    return reported, range(first, min(first + size, total))


def _workbooks(request: Request) -> Answer:
    reported, page = _page(request, request.case.size)
    items = "".join(_workbook(number) for number in page)
    return _xml(f"{reported}<workbooks>{items}</workbooks>")


def _workbook(number: int) -> str:
    project = number % 7
    return (
        f'<workbook id="{identifier("workbook", number)}" name="Workbook {number}" '
        f'contentUrl="Workbook{number}" showTabs="true" size="{1 + number % 9}" {_TIMES} '
        f'webpageUrl="https://pod.online.tableau.com/#/site/x/workbooks/{number}">'
        f'<project id="{identifier("project", project)}" name="Project {project}"/>'
        f'<owner id="{identifier("user", number % 5)}"/><tags/></workbook>'
    )


def _data_sources(request: Request) -> Answer:
    reported, page = _page(request, request.case.size)
    items = "".join(
        f'<datasource id="{identifier("source", number)}" name="Source {number}" '
        f'contentUrl="Source{number}" type="snowflake" hasExtracts="true" {_TIMES}>'
        f'<project id="{identifier("project", 0)}" name="Project 0"/><tags/></datasource>'
        for number in page
    )
    return _xml(f"{reported}<datasources>{items}</datasources>")


def _nothing_of(name: str) -> Any:
    def answer(request: Request) -> Answer:
        number = _page_of(request)
        reported = f'<pagination pageNumber="{number}" pageSize="100" totalAvailable="0"/>'
        return _xml(f"{reported}<{name}/>")

    return answer


# --- the Metadata API ---------------------------------------------------------------------------


def _metadata(request: Request) -> dict[str, Any]:
    asked = request.json["variables"]["luid"]
    size = request.case.size
    number = next((n for n in range(size) if identifier("workbook", n) == asked), None)
    return {"data": {"workbooks": [] if number is None else [_content(number, request.case)]}}


def _partial(severity: str) -> Any:
    """Tableau answers 200 where it gives only a part, and says why; or only warns."""

    def answer(request: Request) -> dict[str, Any]:
        reported = {"code": "NODE_LIMIT_EXCEEDED", "severity": severity}
        errors = [{"message": "Showing partial results.", "extensions": reported}]
        whole = _metadata(request) if severity == "WARNING" else {"data": {"workbooks": []}}
        return {**whole, "errors": errors}

    return answer


def _unusable(request: Request) -> dict[str, Any]:
    """One workbook with null for a list, which the library leaves out."""
    made = _metadata(request)
    if request.json["variables"]["luid"] == identifier("workbook", 1):
        made["data"]["workbooks"][0]["sheets"][1]["parentEmbeddedDatasources"] = None
    return made


def _content(number: int, case: Case) -> dict[str, Any]:
    sheets = [_sheet(number, sheet) for sheet in range(3)]
    return {
        "luid": identifier("workbook", number),
        "name": f"Workbook {number}",
        **_dates(),
        "uri": f"sites/{identifier('site', case.name)}/workbooks/{number}",
        "projectName": f"Project {number % 7}",
        "projectLuid": identifier("project", number % 7),
        "sheets": sheets,
        "dashboards": [
            {
                "luid": identifier("dashboard", number),
                "name": f"Dashboard {number}",
                **_dates(),
                "path": f"Workbook{number}/Dashboard",
                "sheets": [{"luid": sheet["luid"], "id": sheet["id"]} for sheet in sheets],
            }
        ],
    }


def _sheet(number: int, sheet: int) -> dict[str, Any]:
    """The first is hidden and has an embedded source, as happens; the others a published one."""
    name = f"Sheet {number} {sheet}"
    published = [] if sheet == 0 else [_published(number)]
    return {
        "luid": "" if sheet == 0 else identifier("sheet", number, sheet),
        "id": identifier("metadata", number, sheet),
        "name": name,
        **_dates(),
        "path": "" if sheet == 0 else f"Workbook{number}/{name}",
        "parentEmbeddedDatasources": [
            {
                "id": identifier("embedded", number, sheet),
                "name": f"Embedded {number} {sheet}",
                "hasExtracts": False,
                "upstreamTables": [_table(number)],
                "parentPublishedDatasources": published,
            }
        ],
    }


def _published(number: int) -> dict[str, Any]:
    return {
        "luid": identifier("source", number),
        "id": identifier("metadata source", number),
        "name": f"Source {number}",
        "hasExtracts": True,
        "upstreamTables": [_table(number)],
    }


def _table(number: int) -> dict[str, Any]:
    return {
        "id": identifier("table", number),
        "name": f"ORDERS_{number}",
        "fullName": f"[PUBLIC].[ORDERS_{number}]",
        "schema": "PUBLIC",
        "connectionType": "snowflake",
        "isEmbedded": True,
        "tableType": "table",
        "projectName": "",
        "database": {"id": identifier("db", 1), "name": "ANALYTICS", "projectName": ""},
    }


def _dates() -> dict[str, str]:
    return {"createdAt": "2025-01-10T08:00:00Z", "updatedAt": "2025-11-02T08:00:00Z"}


class Tableau(StandIn):
    """One pod a case: ``<case>.online.tableau.com``."""

    name = "tableau"
    integration = "dagster-tableau"
    hosts = (r"[\w-]+\.online\.tableau\.com",)
    variables: ClassVar = {
        "TABLEAU_CLIENT_ID": "b0000000-0000-4000-8000-000000000001",
        "TABLEAU_SECRET_ID": "canary-tableau-secret-id-0001",
        "TABLEAU_SECRET_VALUE": _SECRET,
        "TABLEAU_USERNAME": "bi@example.com",
    }
    endpoints = (
        Endpoint(
            "server-info", "GET", "/api/{version}/serverInfo", _server_info,
            empty=lambda _: _xml(""), signed_in=False,
        ),
        Endpoint(
            "sign-in", "POST", "/api/{version}/auth/signin", _sign_in,
            empty=lambda _: _xml(""), signed_in=False,
        ),
        Endpoint(
            "workbooks", "GET", f"{_SITES}/workbooks", _workbooks,
            empty=_nothing_of("workbooks"), page=_page_of,
        ),
        Endpoint(
            "metadata", "POST", "/api/metadata/graphql", _metadata,
            empty=lambda _: {"data": {"workbooks": []}},
            own={
                "graphql-errors": _partial("ERROR"),
                "graphql-warnings": _partial("WARNING"),
                "unusable": _unusable,
            },
        ),
        Endpoint(
            "data-sources", "GET", f"{_SITES}/datasources", _data_sources,
            empty=_nothing_of("datasources"), page=_page_of,
        ),
        Endpoint("sign-out", "POST", "/api/{version}/auth/signout", lambda _: Answer(status=204)),
    )  # fmt: skip

    @staticmethod
    def refused(status: int) -> Answer:
        code = _CODES[status]
        error = f"<summary>{status}</summary><detail>The request was not carried out.</detail>"
        reported = _xml(f'<error code="{code}">{error}</error>')
        return Answer(reported.body, status, reported.kind)

    def refusal(self, request: Request, status: int) -> Answer:
        if "graphql" in request.path:
            return Answer({"timestamp": 0, "status": status, "path": request.path}, status)
        return self.refused(status)

    def is_signed_in(self, request: Request) -> bool:
        return request.headers.get("x-tableau-auth") == f"{_SESSION}|{request.case.name}"

    def key(self, case: Case) -> str:
        return f"{case.subclass}TableauComponent[{case.name}]"

    def host(self, case: Case, endpoint: str) -> str:
        return f"{case.name}.online.tableau.com"

    def component(self, case: Case) -> str:
        return f"""
type: dagster_tableau.TableauComponent
attributes:
  workspace:
    type: cloud
    connected_app_client_id: "{{{{ env.TABLEAU_CLIENT_ID }}}}"
    connected_app_secret_id: "{{{{ env.TABLEAU_SECRET_ID }}}}"
    connected_app_secret_value: "{{{{ env.TABLEAU_SECRET_VALUE }}}}"
    username: "{{{{ env.TABLEAU_USERNAME }}}}"
    site_name: {case.name}
    pod_name: {case.name}
"""

    def assets(self, case: Case) -> set[str]:
        found: set[str] = set()
        for number in range(case.size):
            book = f"workbook_{number}"
            found |= {f"{book}/sheet/sheet_{number}_{sheet}" for sheet in range(3)}
            found |= {f"{book}/dashboard/dashboard_{number}", f"source_{number}"}
            found.add(f"{book}/embedded_datasource/embedded_{number}_0")
        return found
