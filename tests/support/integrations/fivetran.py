"""Fivetran's REST API: one fixed host, so that cases are distinguished by their API keys.

An account has groups, each with one destination of the same id, and connections (which the library
asks for by their older name, connectors). Lists are paged with ``next_cursor``, 100 items a page
unless asked for up to 1,000. A connection that was never synced has no schema config: 404.
"""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_HOST = "api.fivetran.com"
_KEY = "canary-fivetran-key"
_SECRET = "canary-fivetran-secret-0123456789"
_CODES = {
    401: ("AuthFailed", "Invalid API key or secret"),
    403: ("Forbidden", "The user has no permission for this"),
    404: ("NotFound", "The requested resource does not exist"),
    429: ("TooManyRequests", "The rate limit of the account is exceeded"),
    500: ("InternalError", "An unexpected error has occurred"),
    503: ("ServiceUnavailable", "Try again later"),
}
_GROUPS = 3
_PAGE = 100
_TABLES = 4
_SERVICES = ("postgres", "salesforce", "google_ads", "stripe")
# Of each twenty connections: this one's setup is broken, this one was never synced.
_BROKEN = 18
_NEVER_SYNCED = 19


def _data(data: Any) -> dict[str, Any]:
    return {"code": "Success", "message": "Operation performed.", "data": data}


def _page(request: Request, items: list[Any]) -> dict[str, Any]:
    """One page of a list; the cursor is opaque, and missing on the last page."""
    limit = int(request.query.get("limit", _PAGE))
    start = int(base64.b64decode(request.query.get("cursor", "MA==")))
    data: dict[str, Any] = {"items": items[start : start + limit]}
    if start + limit < len(items):
        data["next_cursor"] = base64.b64encode(b"%d" % (start + limit)).decode()
    return _data(data)


def _groups_of(case: Case) -> list[str]:
    return [f"group_{number}" for number in range(max(_GROUPS, case.size // 100))]


def _group(request: Request) -> int:
    return _groups_of(request.case).index(request.parts["group"])


def _groups(request: Request) -> dict[str, Any]:
    return _page(
        request,
        [
            {"id": group, "name": f"Warehouse {group}", "created_at": "2024-12-20T11:59:35.089Z"}
            for group in _groups_of(request.case)
        ],
    )


def _destination(request: Request) -> dict[str, Any]:
    number = _group(request)
    return _data(
        {
            "id": request.parts["group"],
            "group_id": request.parts["group"],
            "service": "snowflake",
            "region": "GCP_EUROPE_WEST3",
            "time_zone_offset": "0",
            "setup_status": "connected",
            "config": {
                "host": "acme.eu-west-1.snowflakecomputing.com",
                "port": "443",
                "database": f"RAW_{number}",
                "auth": "PASSWORD",
                "user": "FIVETRAN",
                "password": "******",
            },
        }
    )


def _connectors(request: Request) -> dict[str, Any]:
    groups = len(_groups_of(request.case))
    numbers = range(_group(request), request.case.size, groups)
    return _page(request, [_connector(request, number) for number in numbers])


def _connector(request: Request, number: int) -> dict[str, Any]:
    broken = number % 20 == _BROKEN
    return {
        "id": f"conn_{number}",
        "group_id": request.parts["group"],
        "service": _SERVICES[number % 4],
        "service_version": 1,
        "schema": f"source_{number}",
        "connected_by": "user_1",
        "created_at": "2024-12-21T10:00:00.000Z",
        "succeeded_at": "2025-11-02T04:05:06.000Z",
        "failed_at": None,
        "paused": False,
        "sync_frequency": 360,
        "schedule_type": "auto",
        "daily_sync_time": None,
        "status": {
            "setup_state": "broken" if broken else "connected",
            "sync_state": "scheduled",
            "update_state": "on_schedule",
            "is_historical_sync": False,
            "tasks": [],
            "warnings": [],
        },
        "config": {
            "host": "db.internal.example",
            "user": "ada@example.com",
            "password": "******",
            "schema_prefix": f"source_{number}",
        },
    }


def _schemas(request: Request) -> Any:
    number = int(request.parts["connector"].removeprefix("conn_"))
    if number % 20 == _NEVER_SYNCED:
        text = f"Connection with id '{request.parts['connector']}' doesn't have schema config"
        return Answer({"code": "NotFound_SchemaConfig", "message": text}, 404)
    tables = {f"Table {table}": _table(table) for table in range(_TABLES)}
    schema = {"name_in_destination": f"source_{number}", "enabled": True, "tables": tables}
    return _data({"schema_change_handling": "ALLOW_ALL", "schemas": {"public": schema}})


def _without_schemas(request: Request) -> Any:
    """Of one connection, which then has no assets."""
    if request.parts["connector"] == "conn_1":
        return _data({"schema_change_handling": "ALLOW_ALL"})
    return _schemas(request)


def _table(number: int) -> dict[str, Any]:
    """The last one of each schema is switched off."""
    return {
        "name_in_destination": f"table_{number}",
        "enabled": number < _TABLES - 1,
        "enabled_patch_settings": {"allowed": True},
        "sync_mode": "SOFT_DELETE",
        "columns": {
            "id": {"name_in_destination": "id", "enabled": True, "is_primary_key": True},
            "note": {"name_in_destination": "note", "enabled": True, "hashed": False},
        },
    }


class Fivetran(StandIn):
    """One account a case."""

    name = "fivetran"
    integration = "dagster-fivetran"
    hosts = (r"api\.fivetran\.com",)
    variables: ClassVar = {"FIVETRAN_API_KEY": _KEY, "FIVETRAN_API_SECRET": _SECRET}
    endpoints = (
        Endpoint("groups", "GET", "/v1/groups", _groups, lambda _: _data({"items": []})),
        Endpoint(
            "destination", "GET", "/v1/destinations/{group}", _destination, lambda _: _data({}),
        ),
        Endpoint(
            "connectors", "GET", "/v1/groups/{group}/connectors", _connectors,
            lambda _: _data({"items": []}),
        ),
        Endpoint(
            "schemas", "GET", "/v1/connectors/{connector}/schemas", _schemas,
            lambda _: _data({"schema_change_handling": "ALLOW_ALL"}),
            own={"no-schemas": _without_schemas},
        ),
    )  # fmt: skip

    def case_of(self, request: Request) -> str:
        """By the API key, of which each case has one."""
        return self._credentials(request)[0].removeprefix(f"{_KEY}-")

    def refusal(self, request: Request, status: int) -> Answer:
        code, message = _CODES[status]
        return Answer({"code": code, "message": message}, status)

    def is_signed_in(self, request: Request) -> bool:
        return self._credentials(request)[1] == _SECRET

    def key(self, case: Case) -> str:
        return f"{case.subclass}FivetranAccountComponent[{case.name}]"

    def host(self, case: Case, endpoint: str) -> str:
        return _HOST

    def component(self, case: Case) -> str:
        return f"""
type: dagster_fivetran.FivetranAccountComponent
attributes:
  workspace:
    account_id: {case.name}
    api_key: "{{{{ env.FIVETRAN_API_KEY }}}}-{case.name}"
    api_secret: "{{{{ env.FIVETRAN_API_SECRET }}}}"
"""

    def assets(self, case: Case) -> set[str]:
        return {
            f"source_{number}/table_{table}"
            for number in range(case.size)
            if number % 20 not in (_BROKEN, _NEVER_SYNCED)
            for table in range(_TABLES - 1)
        }

    @staticmethod
    def _credentials(request: Request) -> tuple[str, str]:
        key, _, secret = base64.b64decode(request.bearer).decode().partition(":")
        return key, secret
