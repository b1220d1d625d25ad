"""Looker's API 4.0: one instance a case. Lists come whole: what is asked for is not paged."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_TOKEN = "canary-looker-access-token"
_SECRET = "canary-looker-client-secret-0123456789"
_DOCS = "https://cloud.google.com/looker/docs/r/err"
_EXPLORES_A_MODEL = 10
_API = "/api/4.0"


def _login(request: Request) -> Any:
    if request.form.get("client_secret") != _SECRET:
        return Answer({"message": "Not found", "documentation_url": _DOCS}, 404)
    token = f"{_TOKEN}-{request.case.name}"
    return {"access_token": token, "token_type": "Bearer", "expires_in": 3600}


def _folders(request: Request) -> list[dict[str, Any]]:
    shared = {"id": "1", "name": "Shared", "parent_id": None, "child_count": 9}
    return [shared, *({"id": str(n), "name": f"Team {n}", "parent_id": "1"} for n in range(2, 30))]


def _dashboards(request: Request) -> list[dict[str, Any]]:
    """Every tenth is hidden, and not asked for."""
    return [
        {"id": str(number), "hidden": number % 10 == 9, "folder": {"id": "2", "name": "Team 2"}}
        for number in range(request.case.size)
    ]


def _dashboard(request: Request) -> dict[str, Any]:
    number = int(request.parts["dashboard"])
    model, explore = _explores(request.case)[number % len(_explores(request.case))]
    return {
        "id": str(number),
        "title": f"Dashboard {number}",
        "url": f"/dashboards/{number}",
        "hidden": False,
        "user_id": str(1 + number % 7),
        "folder": {"id": "2", "name": "Team 2"},
        "dashboard_filters": [
            {
                "id": f"{number}1",
                "dashboard_id": str(number),
                "name": "Region",
                "type": "field_filter",
                "model": model,
                "explore": explore,
                "dimension": "orders.region",
            }
        ],
        "dashboard_elements": [
            {"id": f"{number}{element}", "dashboard_id": str(number), "title": f"Tile {element}"}
            for element in range(4)
        ],
    }


def _explores(case: Case) -> list[tuple[str, str]]:
    return [
        (f"model_{number // _EXPLORES_A_MODEL}", f"explore_{number}") for number in range(case.size)
    ]


def _models(request: Request) -> list[dict[str, Any]]:
    models: dict[str, list[dict[str, Any]]] = {}
    for model, explore in _explores(request.case):
        models.setdefault(model, []).append({"name": explore, "hidden": False, "label": explore})
    return [{"name": model, "explores": explores} for model, explores in models.items()]


def _explore(request: Request) -> dict[str, Any]:
    model, explore = request.parts["model"], request.parts["explore"]
    return {
        "id": f"{model}::{explore}",
        "view_name": explore,
        "sql_table_name": f"analytics.{explore}",
        "connection_name": "warehouse",
        "joins": [{"name": "customers", "sql_table_name": "analytics.customers"}],
    }


def _unusable(request: Request) -> dict[str, Any]:
    """One explore without what the library needs, which it leaves out."""
    made = _explore(request)
    return {**made, "id": None} if request.parts["explore"] == "explore_1" else made


def _users(request: Request) -> list[dict[str, Any]]:
    asked = sorted(set(filter(None, request.query.get("id", "").split(","))))
    return [
        {"id": user, "email": f"person{user}@example.com", "display_name": f"Person {user}"}
        for user in asked
    ]


class Looker(StandIn):
    """One instance a case: ``<case>.cloud.looker.com``."""

    name = "looker"
    integration = "dagster-looker"
    hosts = (r"[\w-]+\.cloud\.looker\.com",)
    # At the login it refuses credentials.
    codes: ClassVar = {"404": frozenset({77, 78})}
    variables: ClassVar = {
        "LOOKER_CLIENT_ID": "canary-looker-client-id",
        "LOOKER_CLIENT_SECRET": _SECRET,
    }
    endpoints = (
        Endpoint("login", "POST", f"{_API}/login", _login, signed_in=False),
        Endpoint("folders", "GET", f"{_API}/folders", _folders, empty=lambda _: []),
        Endpoint("dashboards", "GET", f"{_API}/dashboards", _dashboards, empty=lambda _: []),
        Endpoint("dashboard", "GET", f"{_API}/dashboards/{{dashboard}}", _dashboard),
        Endpoint("models", "GET", f"{_API}/lookml_models", _models, empty=lambda _: []),
        Endpoint(
            "explore",
            "GET",
            f"{_API}/lookml_models/{{model}}/explores/{{explore}}",
            _explore,
            own={"unusable": _unusable},
        ),
        Endpoint("users", "GET", f"{_API}/users/search", _users, empty=lambda _: []),
    )

    def refusal(self, request: Request, status: int) -> Answer:
        message = {401: "Requires authentication.", 404: "Not found"}.get(status, "An error.")
        return Answer({"message": message, "documentation_url": _DOCS}, status)

    def is_signed_in(self, request: Request) -> bool:
        return request.bearer == f"{_TOKEN}-{request.case.name}"

    def key(self, case: Case) -> str:
        return f"{case.subclass}LookerComponent[https://{self.host(case, '*')}]"

    def host(self, case: Case, endpoint: str) -> str:
        return f"{case.name}.cloud.looker.com"

    def component(self, case: Case) -> str:
        return f"""
type: dagster_looker.LookerComponent
attributes:
  looker_resource:
    base_url: https://{self.host(case, "*")}
    client_id: "{{{{ env.LOOKER_CLIENT_ID }}}}"
    client_secret: "{{{{ env.LOOKER_CLIENT_SECRET }}}}"
"""

    def assets(self, case: Case) -> set[str]:
        shown = [number for number in range(case.size) if number % 10 != 9]
        dashboards = {f"Dashboard {number}_{number}" for number in shown}
        return dashboards | {f"{model}::{explore}" for model, explore in _explores(case)}
