"""Describes each definition of a loaded code location by the fields that a reader asks about.

The third part of the program of `bundler.worker.definitions`. What Dagster shows of a definition
is in a field here, or a test says why not.
"""

from __future__ import annotations

from bundler.worker.configuration import accepted_by, class_of, configured, own_resources, preset_of
from bundler.worker.values import (
    CONFIGURATION,
    automation_of,
    digest,
    if_any,
    key_of,
    keys_of,
    metadata_of,
    partitions_of,
    secret_digest,
    text_of,
    texts_of,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_KIND_TAG = "dagster/kind/"
# Jobs that Dagster makes of assets, and never shows.
_UNNAMED_JOBS = ("__ASSET_JOB", "__anonymous_asset_job")
_PLUGINS = "plugin_component_types_json"  # Dagster's own: the installed components
_DEFAULT_EXECUTOR = "multi_or_in_process_executor"
_DEFAULT_LOGGERS = ["console"]
_COMPUTATIONS: dict[int, tuple[Any, dict[str, Any]]] = {}


def described(location: Any) -> dict[str, dict[str, Any]]:
    """The definitions by kind and name."""
    has_repository = hasattr(location, "get_repository_def")
    repository = location.get_repository_def() if has_repository else location
    graph = repository.asset_graph
    jobs = {job.name: job for job in repository.get_all_jobs()}
    shared = repository.get_top_level_resources()
    return {
        "assets": {
            key_of(node.key): _asset(node, shared)
            for node in map(graph.get, graph.get_all_asset_keys())
            if not _is_stub(node)
        },
        "asset checks": {
            check_name(key): _check(graph.get(key), graph.assets_def_for_key(key), shared)
            for key in graph.asset_check_keys
        },
        "jobs": {
            name: _job(job, shared)
            for name, job in jobs.items()
            if not name.startswith(_UNNAMED_JOBS)
        },
        "schedules": {item.name: _schedule(item, jobs) for item in repository.schedule_defs},
        "sensors": {item.name: _sensor(item, jobs, graph) for item in repository.sensor_defs},
        "resources": _resources(repository),
        "settings": _settings(repository, jobs),
    }


def _settings(repository: Any, jobs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What applies to the whole code location, if anything is set."""
    implicit = jobs.get(_UNNAMED_JOBS[0])
    executor = getattr(implicit, "executor_def", None)
    if executor is not None and executor.name == _DEFAULT_EXECUTOR:
        executor = None
    told = {"type": executor and executor.name, CONFIGURATION: secret_digest(preset_of(executor))}
    loggers = _loggers(implicit) if implicit is not None else {}
    given = getattr(repository, "metadata", None) or {}
    metadata = metadata_of({name: it for name, it in given.items() if name != _PLUGINS})
    return if_any(
        {"executor": if_any(told), "loggers": loggers, "metadata": if_any({"metadata": metadata})}
    )


def _loggers(job: Any) -> dict[str, Any]:
    """Those of a job that are not just Dagster's default."""
    names = sorted(job.loggers)
    presets = {
        name: preset for name in names if (preset := preset_of(job.loggers[name])) is not None
    }
    told = if_any({CONFIGURATION: secret_digest(presets or None)})
    return told if names == _DEFAULT_LOGGERS else {"names": names, **told}


def _asset(node: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    tags = {name: value for name, value in node.tags.items() if not name.startswith(_KIND_TAG)}
    made_by = node.assets_def
    return {
        "dependencies": keys_of(node.parent_keys),
        "group": node.group_name,
        "owners": sorted(node.owners),
        "automation": automation_of(node.automation_condition),
        "code version": node.code_version,
        "partitions": partitions_of(node.partitions_def),
        "kinds": sorted(node.kinds),
        "tags": dict(sorted(tags.items())),
        "type": _type_of(node),
        **if_any(
            {
                "description": text_of(node.description),
                "metadata": metadata_of(node.metadata),
                "freshness": text_of(node.freshness_policy or node.legacy_freshness_policy),
                "backfill": text_of(node.backfill_policy),
                "observed every": text_of(node.auto_observe_interval_minutes),
                "partition mappings": texts_of(node.partition_mappings, key_of),
                "optional": made_by.get_asset_spec(node.key).skippable or None,
                "io manager": node.io_manager_key if node.is_materializable else None,
                "value": _type_of_value(made_by, node.key),
            }
        ),
        **_computation(made_by, shared),
    }


def _is_stub(node: Any) -> bool:
    """Whether Dagster made it up because something depends on it: nothing defines it then."""
    return bool(getattr(node.assets_def, "is_auto_created_stub", False))


def check_name(key: Any) -> str:
    """What a user calls an asset check."""
    return f"{key_of(key.asset_key)}:{key.name}"


def _type_of(node: Any) -> str:
    if getattr(node, "is_virtual", False):
        return "virtual"
    if node.is_materializable:
        return "materializable"
    return "observable" if node.is_observable else "external"


def _type_of_value(made_by: Any, key: Any) -> str | None:
    """The type of the output, if it has one."""
    if not made_by.is_executable:
        return None
    output = made_by.get_output_name_for_asset_key(key)
    name = str(made_by.node_def.output_def_named(output).dagster_type.display_name)
    return None if name in ("Any", "Nothing") else name


def _computation(made_by: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What runs to make assets or checks: one may make thousands."""
    if not made_by.is_executable:
        return {}
    same = id(made_by)
    if same not in _COMPUTATIONS:
        _COMPUTATIONS[same] = made_by, _described_computation(made_by, shared)
    return _COMPUTATIONS[same][1]


def _described_computation(made_by: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    definition = made_by.node_def
    together = () if made_by.can_subset else made_by.asset_and_check_keys
    many = len(together) > 1
    is_graph = hasattr(definition, "node_dict")
    return if_any(
        {
            "op": definition.name,
            "op tags": texts_of(definition.tags),
            "resources": sorted(made_by.required_resource_keys),
            "inputs": _inputs(made_by),
            "pools": sorted({op.pool for op in definition.iterate_op_defs() if op.pool}),
            "retries": text_of(getattr(definition, "retry_policy", None)),
            "hooks": sorted(hook.name for hook in made_by.hook_defs),
            "made with": f"{len(together)} {digest(sorted(map(str, together)))}" if many else None,
            **(_wired(definition) if is_graph else {}),
            **own_resources(made_by, shared, _config_types(definition)),
        }
    )


def _inputs(made_by: Any) -> dict[str, str]:
    """What the function gets of other assets, and how that is loaded."""
    keys = made_by.keys_by_input_name
    return {
        it.name: " ".join([key_of(keys[it.name]), *_details_of(it)])
        for it in made_by.node_def.input_defs
        if it.name in keys and it.dagster_type.display_name != "Nothing"
    }


def _details_of(given: Any) -> list[str]:
    name, metadata = given.dagster_type.display_name, metadata_of(given.metadata or {})
    return [
        *([] if name == "Any" else [f"as {name}"]),
        *([f"by {given.input_manager_key}"] if given.input_manager_key else []),
        *([str(metadata)] if metadata else []),
    ]


def _wired(graph: Any) -> dict[str, Any]:
    return {"wiring": _wiring(graph), "op definitions": dict(_op_definitions(graph))}


def _wiring(graph: Any) -> str:
    """A digest of what a graph calls, and where the inputs and outputs of that go."""
    return digest(
        [
            sorted(
                repr((*_invoked(node), sorted(inputs.items())))
                for node, inputs in graph.dependencies.items()
            ),
            sorted(repr((it.graph_input_name, it.maps_to)) for it in graph.input_mappings),
            sorted(repr((it.graph_output_name, it.maps_from)) for it in graph.output_mappings),
        ]
    )


def _invoked(node: Any) -> list[Any]:
    hooks = sorted(hook.name for hook in node.hook_defs)
    return [node.name, node.alias, sorted(node.tags.items()), hooks, node.retry_policy]


def _op_definitions(graph: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """A digest of each op and graph in a graph, by its path."""
    for name, node in graph.node_dict.items():
        definition = node.definition
        is_graph = hasattr(definition, "node_dict")
        yield f"{above}{name}", _wiring(definition) if is_graph else digest(_op(definition))
        if is_graph:
            yield from _op_definitions(definition, f"{above}{name}.")


def _op(op: Any) -> list[Any]:
    inputs = sorted(
        (it.name, *_details_of(it), written(it.default_value) if it.has_default_value else "")
        for it in op.input_defs
    )
    outputs = sorted(
        (it.name, it.dagster_type.display_name, it.io_manager_key, it.is_required, it.is_dynamic)
        for it in op.output_defs
    )
    return [
        *(op.name, op.description, sorted(op.tags.items()), op.pool, op.retry_policy),
        *(getattr(op, "version", None), sorted(op.required_resource_keys), inputs, outputs),
        [(it.name, metadata_of(it.metadata or {})) for it in op.output_defs],
    ]


def _config_types(definition: Any) -> Any:
    """The configuration that its ops accept, with the defaults, and what its graphs give them;
    None if there is none."""
    of_ops = ((op.name, accepted_by(op.config_field)) for op in definition.iterate_op_defs())
    of_graphs = ((it.name, _mapped(it.config_mapping)) for it in _graphs(definition))
    return sorted({written(it) for it in (*of_ops, *of_graphs) if it[1] is not None}) or None


def _graphs(definition: Any) -> Iterator[Any]:
    """The graph itself and the graphs in it; nothing for an op."""
    if hasattr(definition, "node_dict"):
        yield definition
        for node in definition.node_dict.values():
            yield from _graphs(node.definition)


def _mapped(mapping: Any) -> Any:
    """What a graph accepts and, unless a function of the project decides that, gives its ops."""
    if mapping is None:
        return None
    is_fixed = mapping.config_fn.__module__.startswith("dagster.")
    given = mapping.config_fn(None) if is_fixed else None
    return accepted_by(mapping.config_schema.as_field()), given


def _check(node: Any, made_by: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    given = made_by.get_spec_for_check_key(node.key).additional_deps
    mapped = ((it.asset_key, it.partition_mapping) for it in given if it.partition_mapping)
    return {
        "dependencies": keys_of(getattr(node, "parent_entity_keys", ())),
        "blocking": node.blocking,
        "automation": automation_of(node.automation_condition),
        "description": text_of(node.description),
        **if_any(
            {
                "metadata": metadata_of(node.metadata),
                "partitions": partitions_of(node.partitions_def),
                "partition mappings": texts_of(dict(mapped), key_of),
            }
        ),
        **_computation(made_by, shared),
    }


def _job(job: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    layer = job.asset_layer
    selected = layer.selected_asset_keys
    checks = getattr(job.asset_layer.asset_graph, "asset_check_keys", ())
    return {
        "assets": keys_of(selected),
        "ops": [] if selected else sorted(job.graph.node_dict),
        "partitions": partitions_of(job.partitions_def),
        "tags": dict(sorted(job.tags.items())),
        **if_any(
            {
                "asset checks": sorted(map(check_name, checks)),
                "description": text_of(job.description),
                "metadata": metadata_of(job.metadata),
                "owners": sorted(getattr(job, "owners", None) or ()),
                "run tags": texts_of(getattr(job, "run_tags", None) or {}),
                "automation": automation_of(getattr(job, "automation_condition", None)),
                "executor": job.executor_def.name,
                "loggers": sorted(job.loggers),
                "hooks": sorted(hook.name for hook in job.hook_defs),
                "retries": text_of(job.op_retry_policy),
                "resources": [] if selected else sorted(job.required_resource_keys),
                **({} if selected else _wired(job.graph)),
                **own_resources(job, shared, _configuration_of(job, selected)),
            }
        ),
    }


def _configuration_of(job: Any, selected: Any) -> Any:
    """The run config, and what is set of the executor and the loggers."""
    presets = {
        name: preset
        for name, it in {"executor": job.executor_def, **job.loggers}.items()
        if (preset := preset_of(it)) is not None
    }
    accepted = None if selected else (_config_types(job.graph), _mapped(job.config_mapping))
    given = (job.run_config, job.input_values)
    return (given, presets, accepted) if any(given) or presets or any(accepted or ()) else None


def _launched(targets: Any, jobs: dict[str, Any]) -> dict[str, Any]:
    """What a schedule or sensor launches: jobs, and the assets of those without a name."""
    names = [name for it in targets if (name := getattr(it, "job_name", None))]
    anonymous = [jobs[name] for name in names if name.startswith(_UNNAMED_JOBS) and name in jobs]
    return {
        "jobs": sorted(name for name in names if not name.startswith(_UNNAMED_JOBS)),
        "assets": sorted(
            {key for job in anonymous for key in keys_of(job.asset_layer.selected_asset_keys)}
        ),
        "ops": sorted({op for it in targets for op in getattr(it, "op_selection", None) or ()}),
    }


def _automatic(automation: Any) -> dict[str, Any]:
    """What schedules and sensors have in common."""
    return if_any(
        {
            "description": text_of(automation.description),
            "metadata": metadata_of(automation.metadata),
            "owners": sorted(getattr(automation, "owners", None) or ()),
            "tags": texts_of(automation.tags),
            "resources": sorted(automation.required_resource_keys),
        }
    )


def _schedule(schedule: Any, jobs: dict[str, Any]) -> dict[str, Any]:
    launched = _launched([schedule.target], jobs)
    return {
        "cron": text_of(schedule.cron_schedule),
        "timezone": schedule.execution_timezone,
        "job": schedule.job_name,
        "status": schedule.default_status.value,
        **_automatic(schedule),
        **if_any(
            {
                "assets": launched["assets"],
                "ops": launched["ops"],
                CONFIGURATION: secret_digest(_configuration(schedule)),
            }
        ),
    }


def _configuration(schedule: Any) -> Any:
    """The variables and the run config, unless a function of the project makes that."""
    function = getattr(_as_written(schedule), "_run_config_fn", None)
    is_fixed = getattr(function, "__qualname__", "").endswith("._default_run_config_fn")
    config = function(None) if is_fixed and function is not None else None
    return (config, schedule.environment_vars) if config or schedule.environment_vars else None


def _as_written(schedule: Any) -> Any:
    """The schedule of the project: in a component, Dagster wraps it to note where it comes from."""
    closure = getattr(getattr(schedule, "_execution_fn", None), "__closure__", None) or ()
    inner = (it.cell_contents for it in closure if isinstance(it.cell_contents, type(schedule)))
    found = next(inner, schedule)
    return found if found is schedule else _as_written(found)


def _sensor(sensor: Any, jobs: dict[str, Any], graph: Any) -> dict[str, Any]:
    launched = _launched(sensor.targets or (), jobs)
    selection = sensor.asset_selection
    assets = keys_of(selection.resolve(graph)) if selection is not None else launched["assets"]
    watched = [getattr(sensor, "asset_key", None), *_monitored(sensor, graph)]
    watched_jobs = map(_watched, getattr(sensor, "_monitored_jobs", None) or ())
    condition = getattr(sensor, "default_condition", None)
    return {
        "type": sensor.sensor_type.value,
        "jobs": launched["jobs"],
        "assets": assets,
        "interval": sensor.minimum_interval_seconds,
        "status": sensor.default_status.value,
        **_automatic(sensor),
        **if_any(
            {
                "ops": launched["ops"],
                "watched assets": keys_of(key for key in watched if hasattr(key, "to_user_string")),
                "watched jobs": sorted(watched_jobs),
                "watched runs": getattr(getattr(sensor, "_run_status", None), "value", None),
                "all code locations": getattr(sensor, "_monitor_all_code_locations", None) or None,
                "run tags": texts_of(getattr(sensor, "run_tags", None) or {}),
                "backfills": getattr(sensor, "emit_backfills", None),
                "condition": automation_of(condition),
            }
        ),
    }


def _monitored(sensor: Any, graph: Any) -> list[Any]:
    monitored: Any = getattr(sensor, "_monitored_assets", ())
    return list(monitored.resolve(graph) if hasattr(monitored, "resolve") else monitored)


def _watched(job: Any) -> str:
    """A job, or a selection of jobs in other code locations."""
    names = (getattr(job, it, None) for it in ("location_name", "repository_name", "job_name"))
    return str(getattr(job, "name", None) or ":".join(filter(None, names)))


def _resources(repository: Any) -> dict[str, dict[str, Any]]:
    """The classes of the resources, and never a value: that may be a credential."""
    # Despite its name: the resources by environment variable.
    used = repository.get_env_vars_by_top_level_resource()
    return {
        name: {
            "type": class_of(resource),
            "variables": sorted(variable for variable, by in used.items() if name in by),
            **if_any(
                {
                    "description": text_of(resource.description),
                    "version": getattr(resource, "version", None),
                    "resources": sorted(getattr(resource, "nested_resources", None) or ()),
                    CONFIGURATION: secret_digest(configured(resource)),
                }
            ),
        }
        for name, resource in repository.get_top_level_resources().items()
    }
