"""dbt Cloud's Administrative API v2: an account has its own host, the case's.

The library looks for its ad hoc job by name, creates it if it is missing, has it run ``dbt parse``,
waits for the run's end and takes ``manifest.json`` from it. Lists are paged by ``offset``, and say
how many there are of everything in ``extra``. What a case has created stays with its stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.integrations.standin import Answer, Case, Endpoint, Request, StandIn

_DOMAIN = "us1.dbt.com"
_ACCOUNT = 70403103922125
_API = f"/api/v2/accounts/{_ACCOUNT}"
_TOKEN = "dbtc_canary-0123456789abcdefghijklmnopqrst"
_FIRST_RUN = 70403110257794
_QUEUED, _RUNNING, _SUCCESS, _ERROR, _CANCELLED = 1, 3, 10, 20, 30
# The items that a page has at most, and the library asks for; and the jobs for each model, so that
# a small account has two pages.
_PAGE = 100
_JOBS = 4


def _enveloped(data: Any, code: int = 200, **more: Any) -> dict[str, Any]:
    word = "Success!" if code < 400 else "The request could not be processed."
    status = {
        "code": code,
        "is_success": code < 400,
        "user_message": word,
        "developer_message": "",
    }
    return {"status": status, "data": data, **more}


def _jobs_of(request: Request) -> list[dict[str, Any]]:
    """The jobs of the environment; those that the library has created come last."""
    project, environment = _ids(request.case)
    names = [f"Nightly {number}" for number in range(_JOBS * request.case.size)]
    runs = len(request.made.get("runs", []))
    return [
        {
            "id": 500 + number,
            "account_id": _ACCOUNT,
            "project_id": project,
            "environment_id": environment,
            "name": name,
            "execute_steps": ["dbt build"],
            "state": 1,
            "run_failure_count": 0,
            "settings": {"threads": 4, "target_name": "default"},
            "schedule": {"cron": "0 4 * * *"},
            "created_at": "2025-08-24T14:15:22Z",
            "updated_at": "2025-08-24T14:15:22Z",
            "next_run": "2026-12-02T04:00:00Z",
            "next_run_humanized": f"{9 + runs} hours, 3 minutes",
        }
        for number, name in enumerate([*names, *request.made.get("jobs", [])])
    ]


def _listed(request: Request) -> dict[str, Any]:
    """One page. An unknown project or environment has no jobs."""
    if request.case.endpoint == "create":  # as if somebody had deleted the ad hoc job
        request.made.pop("jobs", None)
    asked = (request.query["project_id"], request.query["environment_id"])
    items = _jobs_of(request) if asked == tuple(map(str, _ids(request.case))) else []
    return _paged(request, items)


def _paged(request: Request, items: list[Any], total: int | None = None) -> dict[str, Any]:
    start, limit = _offset(request), min(int(request.query["limit"]), _PAGE)
    rows = items[start : start + limit]
    counts = {"count": len(rows), "total_count": len(items) if total is None else total}
    extra = {"filters": {"limit": limit, "offset": start}, "order_by": "id", "pagination": counts}
    return _enveloped(rows, extra=extra)


def _nothing(request: Request) -> dict[str, Any]:
    """Of a later page, the answer still says how long the list is."""
    return _paged(request, [], len(_jobs_of(request)) if _offset(request) else 0)


def _offset(request: Request) -> int:
    return int(request.query.get("offset", 0))


def _created(request: Request) -> Any:
    if (request.json["project_id"], request.json["environment_id"]) != _ids(request.case):
        return Answer(_enveloped(None, 404), 404)
    request.made.setdefault("jobs", []).append(request.json["name"])
    return Answer(_enveloped(_jobs_of(request)[-1], 201), 201)


def _triggered(request: Request) -> Any:
    if request.json["steps_override"] != ["dbt parse"]:
        return Answer(_enveloped(None, 400), 400)
    runs = request.made.setdefault("runs", [])
    runs.append(_QUEUED)
    return _enveloped(_run(request, len(runs) - 1, _QUEUED))


def _run(request: Request, number: int, status: int) -> dict[str, Any]:
    project, environment = _ids(request.case)
    run = _FIRST_RUN + number
    return {
        "id": run,
        "trigger_id": run + 3,
        "account_id": _ACCOUNT,
        "project_id": project,
        "environment_id": environment,
        "job_definition_id": 500 + _JOBS * request.case.size,
        "status": status,
        "status_message": "dbt parse failed" if status == _ERROR else None,
        "href": f"https://{request.host}/deploy/{_ACCOUNT}/projects/{project}/runs/{run}/",
    }


def _polled(request: Request) -> dict[str, Any]:
    return _enveloped(_run(request, _number(request), _SUCCESS))


def _ended(status: int) -> Any:
    return lambda request: _enveloped(_run(request, _number(request), status))


def _number(request: Request) -> int:
    return int(request.parts["run"]) - _FIRST_RUN


# --- the manifest -------------------------------------------------------------------------------


def _manifest(request: Request) -> dict[str, Any]:
    """Of models that each select from the one before, and a macro of each, as dbt has hundreds."""
    names = _models(request.case)
    ids = [f"model.shop.{name}" for name in names]
    parents = {one: ids[max(0, number - 1) : number] for number, one in enumerate(ids)}
    children = {one: ids[number + 1 : number + 2] for number, one in enumerate(ids)}
    run, (project, _) = request.parts["run"], _ids(request.case)
    return {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
            "dbt_version": "1.11.16",
            "generated_at": f"2026-12-01T13:26:{int(run) % 60:02}.012910Z",
            "invocation_id": f"0329c39b-ca1a-446e-9e57-{int(run):012x}",
            "env": {
                "DBT_CLOUD_PROJECT_ID": str(project),
                "DBT_CLOUD_RUN_ID": run,
                "DBT_CLOUD_JOB_ID": str(500 + _JOBS * request.case.size),
                "DBT_CLOUD_RUN_REASON_CATEGORY": "other",
                "DBT_CLOUD_RUN_REASON": "Triggered by dagster.",
            },
            "project_name": "shop",
            "adapter_type": "snowflake",
        },
        "nodes": {
            one: _model(one, name, parents[one]) for one, name in zip(ids, names, strict=True)
        },
        "sources": {},
        "macros": {f"macro.dbt.{name}": {"name": name, "macro_sql": "-"} for name in names},
        **{part: {} for part in ("exposures", "metrics", "selectors", "disabled")},
        "parent_map": parents,
        "child_map": children,
    }


def _model(unique_id: str, name: str, parents: list[str]) -> dict[str, Any]:
    return {
        "database": "SHOP",
        "schema": "ANALYTICS",
        "name": name,
        "resource_type": "model",
        "package_name": "shop",
        "path": f"{name}.sql",
        "original_file_path": f"models/{name}.sql",
        "unique_id": unique_id,
        "fqn": ["shop", name],
        "alias": name,
        "checksum": {"name": "sha256", "checksum": "ca8d95a0"},
        "config": {"enabled": True, "materialized": "view", "tags": [], "meta": {}},
        "tags": [],
        "description": "",
        "columns": {},
        "meta": {},
        "created_at": 1796131598.08,
        "relation_name": f'"SHOP"."ANALYTICS"."{name}"',
        "raw_code": "select 1",
        "language": "sql",
        "refs": [{"name": parent.rpartition(".")[2]} for parent in parents],
        "sources": [],
        "depends_on": {"macros": [], "nodes": parents},
        "access": "protected",
    }


def _models(case: Case) -> list[str]:
    return [f"{case.name.replace('-', '_')}_model_{number}" for number in range(case.size)]


def _without_models(request: Request) -> dict[str, Any]:
    """As of a project whose model-paths are wrong: the macros are dbt's own."""
    empty: dict[str, Any] = {"nodes": {}, "parent_map": {}, "child_map": {}}
    return {**_manifest(request), **empty}


def _half(request: Request) -> dict[str, Any]:
    manifest = _manifest(request)
    kept = list(manifest["nodes"])[: request.case.size // 3]
    parts = ("nodes", "parent_map", "child_map")
    less = {part: {one: manifest[part][one] for one in kept} for part in parts}
    return {**manifest, **less}


def _of_another_project(request: Request) -> dict[str, Any]:
    manifest = _manifest(request)
    manifest["metadata"]["env"]["DBT_CLOUD_PROJECT_ID"] = "999"
    return manifest


def _ids(case: Case) -> tuple[int, int]:
    """The project and the environment of a case: its key is made of them."""
    number = int.from_bytes(case.name.encode(), "big") % 1_000_003
    return number + 1000, number + 2000


class DbtCloud(StandIn):
    """An account a case."""

    name = "dbt_cloud"
    integration = "dagster-dbt"
    title = "dbt Cloud"
    requirements = "dagster"
    packages = ("python-dateutil",)  # the library imports it without requiring it; dbt does
    hosts = (rf"[\w-]+\.{_DOMAIN}",)
    variables: ClassVar = {
        "DBT_CLOUD_TOKEN": _TOKEN,
        "DAGSTER_DBT_CLOUD_POLL_TIMEOUT": "3",  # read when the library is imported
    }
    codes: ClassVar[Mapping[str, frozenset[int]]] = {
        "failed": frozenset({71}),
        "cancelled": frozenset({71}),
        "queued": frozenset({69}),
        "refused-inside": frozenset({77}),
    }
    endpoints = (
        Endpoint(
            "jobs", "GET", f"{_API}/jobs", _listed,
            empty=_nothing,
            page=lambda request: _offset(request) // _PAGE + 1,
        ),
        Endpoint("create", "POST", f"{_API}/jobs", _created, empty=lambda _: _enveloped(None)),
        Endpoint(
            "trigger", "POST", f"{_API}/jobs/{{job}}/run", _triggered,
            empty=lambda _: _enveloped(None),
        ),
        Endpoint(
            "run", "GET", f"{_API}/runs/{{run}}", _polled,
            empty=lambda _: _enveloped(None),
            own={
                "failed": _ended(_ERROR),
                "cancelled": _ended(_CANCELLED),
                "queued": _ended(_QUEUED),
                "unknown-status": _ended(40),
                "refused-inside": lambda _: _enveloped(None, 403),
            },
        ),
        Endpoint(
            "manifest", "GET", f"{_API}/runs/{{run}}/artifacts/manifest.json", _manifest,
            own={
                "without-models": _without_models,
                "half": _half,
                "another-project": _of_another_project,
            },
        ),
    )  # fmt: skip

    def refusal(self, request: Request, status: int) -> Answer:
        """Quotes the request, as some proxies do: the library logs the answer."""
        said = {"request": request.headers.get("authorization")}
        return Answer({**_enveloped(None, status), **said}, status)

    def is_signed_in(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Token {_TOKEN}"

    def key(self, case: Case) -> str:
        project, environment = _ids(case)
        return f"DbtCloudComponent[{project}-{environment}]"

    def host(self, case: Case, endpoint: str) -> str:
        return f"{case.name}.{_DOMAIN}"

    def component(self, case: Case) -> str:
        project, environment = _ids(case)
        return f"""
type: dagster_dbt.DbtCloudComponent
attributes:
  workspace:
    account_id: {_ACCOUNT}
    token: "{{{{ env.DBT_CLOUD_TOKEN }}}}"
    access_url: https://{case.name}.{_DOMAIN}
    project_id: {project}
    environment_id: {environment}
    request_timeout: 3
"""

    def assets(self, case: Case) -> set[str]:
        return set(_models(case))
