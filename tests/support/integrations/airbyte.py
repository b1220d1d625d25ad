"""Airbyte's two APIs: the public one, and the configuration API for what that one does not tell.

Airbyte Cloud has two fixed hosts, so that cases are distinguished by their client id and token; of
a self-managed one each case has its own host, and the first of them signs in with a user's name and
password. Lists are paged: ``next`` is a whole URL, and empty on the last page.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import replace
from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_CLIENT = "canary-airbyte-client"
_SECRET = "canary-airbyte-client-secret-0123456789"
_PASSWORD = "canary-airbyte-password-0123456789"
_TOKEN = "canary-airbyte-access-token"
_DESTINATIONS = 3
_STREAMS = 4


def identifier(*parts: object) -> str:
    """The id of something."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(map(str, parts))))


def _login(request: Request) -> Any:
    if request.json.get("client_secret") != _SECRET:
        return _refusal(401)
    token = f"{_TOKEN}-{request.case.name}"
    return {"access_token": token, "token_type": "Bearer", "expires_in": 180}


def _workspace(request: Request) -> dict[str, Any]:
    return {
        "workspaceId": request.parts["workspace"],
        "name": "Sales",
        "dataResidency": "auto",
        "notifications": {},
    }


def _offset(request: Request) -> int:
    return int(request.query.get("offset", 0))


def _limit(request: Request) -> int:
    return int(request.query.get("limit", 20))


def _page(request: Request) -> int:
    return 1 + _offset(request) // _limit(request)


def _connections(request: Request) -> dict[str, Any]:
    start, limit = _offset(request), _limit(request)
    end = min(start + limit, request.case.size)
    more = f"https://{request.host}/v1/connections?limit={limit}&offset={end}"
    return {
        "data": [_summary(number) for number in range(start, end)],
        "previous": "",
        "next": more if end < request.case.size else "",
    }


def _same_page(request: Request) -> dict[str, Any]:
    """The first page again and again, as many as there are pages."""
    first = {**request.query, "offset": "0"}
    return {**_connections(request), "data": _connections(replace(request, query=first))["data"]}


def _no_connections(_: Request) -> dict[str, Any]:
    return {"data": [], "previous": "", "next": ""}


def _summary(number: int) -> dict[str, Any]:
    return {
        "connectionId": identifier("connection", number),
        "name": f"Source {number} → Warehouse",
        "sourceId": identifier("source", number),
        "destinationId": identifier("destination", number % _DESTINATIONS),
        "workspaceId": identifier("workspace"),
        "status": "active",
        "schedule": {"scheduleType": "cron", "cronExpression": "0 0 4 * * ?"},
        "dataResidency": "auto",
        "prefix": f"source_{number}_",
        "createdAt": 1735689600,
    }


def _connection(request: Request) -> Any:
    by_id = {identifier("connection", number): number for number in range(request.case.size)}
    number = by_id.get(request.json.get("connectionId"))
    if number is None:
        return _refusal(404)
    return {
        **_summary(number),
        "namespaceDefinition": "destination",
        "syncCatalog": {"streams": [_stream(stream) for stream in range(_STREAMS)]},
    }


def _stream(number: int) -> dict[str, Any]:
    """The last one of each connection is not selected."""
    return {
        "stream": {
            "name": f"stream_{number}",
            "jsonSchema": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "email": {"type": ["null", "string"], "format": "email"},
                },
            },
            "supportedSyncModes": ["full_refresh", "incremental"],
            "namespace": "public",
        },
        "config": {
            "syncMode": "incremental",
            "destinationSyncMode": "append_dedup",
            "aliasName": f"stream_{number}",
            "selected": number < _STREAMS - 1,
        },
    }


def _destination(request: Request) -> Any:
    ids = [identifier("destination", number) for number in range(_DESTINATIONS)]
    if request.parts["destination"] not in ids:
        return _refusal(404)
    return {
        "destinationId": request.parts["destination"],
        "name": "Warehouse",
        "destinationType": "snowflake",
        "workspaceId": identifier("workspace"),
        "configuration": {
            "host": "acme.eu-west-1.snowflakecomputing.com",
            "database": "RAW",
            "schema": f"AIRBYTE_{ids.index(request.parts['destination'])}",
            "username": "ada@example.com",
            "credentials": {"password": "**********"},
        },
    }


def _refusal(status: int) -> Answer:
    kind = {401: "unauthorized", 403: "forbidden", 404: "resource-not-found"}.get(status, "error")
    problem = {
        "status": status,
        "type": f"https://reference.airbyte.com/reference/errors#{kind}",
        "title": kind,
        "detail": "See the documentation.",
    }
    return Answer(problem, status)


def _endpoints(public: str, configuration: str) -> tuple[Endpoint, ...]:
    return (
        Endpoint("login", "POST", f"{public}/applications/token", _login, signed_in=False),
        Endpoint("workspace", "GET", f"{public}/workspaces/{{workspace}}", _workspace),
        Endpoint(
            "connections",
            "GET",
            f"{public}/connections",
            _connections,
            _no_connections,
            _page,
            own={"same-page": _same_page},
        ),
        Endpoint("connection", "POST", f"{configuration}/connections/get", _connection),
        Endpoint("destination", "GET", f"{public}/destinations/{{destination}}", _destination),
    )


class AirbyteCloud(StandIn):
    """One client of one organisation a case."""

    name = "airbyte"
    integration = "dagster-airbyte"
    title = "Airbyte Cloud"
    hosts = (r"(api|cloud)\.airbyte\.com",)
    variables: ClassVar = {"AIRBYTE_CLIENT_ID": _CLIENT, "AIRBYTE_CLIENT_SECRET": _SECRET}
    endpoints = _endpoints("api.airbyte.com/v1", "cloud.airbyte.com/api/v1")

    def case_of(self, request: Request) -> str:
        """By the client that signs in, or the token that it was given."""
        if request.path.endswith("/applications/token"):
            return str(request.json["client_id"]).removeprefix(f"{_CLIENT}-")
        return request.bearer.removeprefix(f"{_TOKEN}-")

    def refusal(self, request: Request, status: int) -> Answer:
        return _refusal(status)

    def is_signed_in(self, request: Request) -> bool:
        return request.bearer == f"{_TOKEN}-{request.case.name}"

    def key(self, case: Case) -> str:
        return f"{case.subclass}AirbyteWorkspaceComponent[{identifier('workspace', case.name)}]"

    def host(self, case: Case, endpoint: str) -> str:
        return "cloud.airbyte.com" if endpoint == "connection" else "api.airbyte.com"

    def component(self, case: Case) -> str:
        return f"""
type: dagster_airbyte.AirbyteWorkspaceComponent
attributes:
  workspace:
    workspace_id: {identifier("workspace", case.name)}
    client_id: "{{{{ env.AIRBYTE_CLIENT_ID }}}}-{case.name}"
    client_secret: "{{{{ env.AIRBYTE_CLIENT_SECRET }}}}"
    max_items_per_page: {min(100, max(1, case.size // 3))}
"""

    def assets(self, case: Case) -> set[str]:
        return {
            f"source_{number}_stream_{stream}"
            for number in range(case.size)
            for stream in range(_STREAMS - 1)
        }


class Airbyte(AirbyteCloud):
    """A self-managed instance a case, with a name and a password."""

    title = "Airbyte, self-managed"
    hosts = (r"[\w-]+\.airbyte\.example",)
    variables: ClassVar = {"AIRBYTE_USER": "airbyte", "AIRBYTE_PASSWORD": _PASSWORD}
    endpoints = _endpoints("/api/public/v1", "/api/v1")[1:]

    def case_of(self, request: Request) -> str:
        return request.host.partition(".")[0]

    def is_signed_in(self, request: Request) -> bool:
        return base64.b64decode(request.bearer).decode() == f"airbyte:{_PASSWORD}"

    def host(self, case: Case, endpoint: str) -> str:
        return f"{case.name}.airbyte.example"

    def component(self, case: Case) -> str:
        base = f"https://{case.name}.airbyte.example"
        return f"""
type: dagster_airbyte.AirbyteWorkspaceComponent
attributes:
  workspace:
    rest_api_base_url: {base}/api/public/v1
    configuration_api_base_url: {base}/api/v1
    workspace_id: {identifier("workspace", case.name)}
    username: "{{{{ env.AIRBYTE_USER }}}}"
    password: "{{{{ env.AIRBYTE_PASSWORD }}}}"
    max_items_per_page: {min(100, max(1, case.size // 3))}
"""
