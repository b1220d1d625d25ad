"""Describes each definition of a loaded code location by the fields that a reader asks about.

The first part of the program of `bundler.worker.definitions`. What Dagster shows of a definition
is in a field here, or a test says why not.
"""

from __future__ import annotations

import hashlib
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# Of values that may be secret there is only a digest, which differs from process to process.
CONFIGURATION = "configuration"
# Of what follows it in a text only a digest is shown.
DIGESTED = "\x1f"
_MOST_TEXT = 100_000
# What a path follows in a text that is not a longer path or an address.
_BEFORE_A_PATH = r"(?:(?<![^\s\"'`(\[{<=,:;|@])|(?<=file://)|(?<=:///))"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_KIND_TAG = "dagster/kind/"
# Jobs that Dagster makes of assets, and never shows.
_UNNAMED_JOBS = ("__ASSET_JOB", "__anonymous_asset_job")
_PLUGINS = "plugin_component_types_json"  # Dagster's own: the installed components
_DEFAULT_EXECUTOR = "multi_or_in_process_executor"
_CONFIGURED = "ConfiguredDefinitionConfigSchema"
_CODE_METADATA = ("dagster/code_references", "dagster/component_origin")
_FOLDERS: dict[str, re.Pattern[str]] = {}
_COMPUTATIONS: dict[int, tuple[Any, dict[str, Any]]] = {}
_salt = ""


def salt_digests(salt: str) -> None:
    """Salts the digests of values that may be secret: only the request can compare them."""
    global _salt  # noqa: PLW0603  # one request a process
    _salt = salt


def leave_out(folder: object) -> None:
    """Leaves the path of a folder out of all texts: it is another one in each load."""
    path = str(folder).rstrip("/")
    if path:
        _FOLDERS[path] = re.compile(rf"{_BEFORE_A_PATH}{re.escape(path)}(?![\w-]|\.\w)")


def described(location: Any) -> dict[str, dict[str, Any]]:
    """The definitions by kind and name."""
    has_repository = hasattr(location, "get_repository_def")
    repository = location.get_repository_def() if has_repository else location
    graph = repository.asset_graph
    jobs = {job.name: job for job in repository.get_all_jobs()}
    return {
        "assets": {
            _key(node.key): _asset(node)
            for node in map(graph.get, graph.get_all_asset_keys())
            if not _is_stub(node)
        },
        "asset checks": {
            check_name(key): _check(graph.get(key), graph.assets_def_for_key(key))
            for key in graph.asset_check_keys
        },
        "jobs": {
            name: _job(job) for name, job in jobs.items() if not name.startswith(_UNNAMED_JOBS)
        },
        "schedules": {item.name: _schedule(item, jobs) for item in repository.schedule_defs},
        "sensors": {item.name: _sensor(item, jobs, graph) for item in repository.sensor_defs},
        "resources": _resources(repository),
        "settings": _settings(repository, jobs),
    }


def _settings(repository: Any, jobs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What applies to the whole code location, if anything is set."""
    executors = (job.executor_def for name, job in jobs.items() if name == _UNNAMED_JOBS[0])
    executor = next((it for it in executors if it.name != _DEFAULT_EXECUTOR), None)
    told = {"type": executor and executor.name, CONFIGURATION: _secret(_preset(executor))}
    given = getattr(repository, "metadata", None) or {}
    metadata = _metadata({name: it for name, it in given.items() if name != _PLUGINS})
    return _if_any({"executor": _if_any(told), "metadata": _if_any({"metadata": metadata})})


def _asset(node: Any) -> dict[str, Any]:
    tags = {name: value for name, value in node.tags.items() if not name.startswith(_KIND_TAG)}
    made_by = node.assets_def
    return {
        "dependencies": _keys(node.parent_keys),
        "group": node.group_name,
        "owners": sorted(node.owners),
        "automation": _automation(node.automation_condition),
        "code version": node.code_version,
        "partitions": _partitions(node.partitions_def),
        "kinds": sorted(node.kinds),
        "tags": dict(sorted(tags.items())),
        "type": _type_of(node),
        **_if_any(
            {
                "description": _text(node.description),
                "metadata": _metadata(node.metadata),
                "freshness": _text(node.freshness_policy or node.legacy_freshness_policy),
                "backfill": _text(node.backfill_policy),
                "observed every": _text(node.auto_observe_interval_minutes),
                "partition mappings": _texts(node.partition_mappings, _key),
                "optional": made_by.get_asset_spec(node.key).skippable or None,
                "io manager": node.io_manager_key if node.is_materializable else None,
                "value": _type_of_value(made_by, node.key),
            }
        ),
        **_computation(made_by),
    }


def _is_stub(node: Any) -> bool:
    """Whether Dagster made it up because something depends on it: nothing defines it then."""
    return bool(getattr(node.assets_def, "is_auto_created_stub", False))


def check_name(key: Any) -> str:
    """What a user calls an asset check."""
    return f"{_key(key.asset_key)}:{key.name}"


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


def _computation(made_by: Any) -> dict[str, Any]:
    """What runs to make assets or checks: one may make thousands."""
    if not made_by.is_executable:
        return {}
    same = id(made_by)
    if same not in _COMPUTATIONS:
        _COMPUTATIONS[same] = made_by, _described_computation(made_by)
    return _COMPUTATIONS[same][1]


def _described_computation(made_by: Any) -> dict[str, Any]:
    definition = made_by.node_def
    together = () if made_by.can_subset else made_by.asset_and_check_keys
    many = len(together) > 1
    is_graph = hasattr(definition, "node_dict")
    return _if_any(
        {
            "op": definition.name,
            "op tags": _texts(definition.tags),
            "resources": sorted(made_by.required_resource_keys),
            "pools": sorted({op.pool for op in definition.iterate_op_defs() if op.pool}),
            "retries": _text(getattr(definition, "retry_policy", None)),
            "hooks": sorted(hook.name for hook in made_by.hook_defs),
            "made with": f"{len(together)} {digest(sorted(map(str, together)))}" if many else None,
            **(_wired(definition) if is_graph else {}),
            CONFIGURATION: _secret(_config_types(definition)),
        }
    )


def _wired(graph: Any) -> dict[str, Any]:
    return {"wiring": digest(graph.dependencies), "op definitions": dict(_op_definitions(graph))}


def _op_definitions(graph: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """A digest of each op and graph in a graph, by its path."""
    for name, node in graph.node_dict.items():
        definition = node.definition
        is_graph = hasattr(definition, "node_dict")
        yield f"{above}{name}", digest(definition.dependencies if is_graph else _op(definition))
        if is_graph:
            yield from _op_definitions(definition, f"{above}{name}.")


def _op(op: Any) -> list[Any]:
    inputs, outputs = (
        sorted((it.name, it.dagster_type.display_name) for it in many)
        for many in (op.input_defs, op.output_defs)
    )
    return [
        *(op.name, op.description, sorted(op.tags.items()), op.pool, op.retry_policy),
        *(getattr(op, "version", None), sorted(op.required_resource_keys), inputs, outputs),
    ]


def _config_types(definition: Any) -> Any:
    """The configuration that its ops accept, with the defaults; None if there is none."""
    fields = ((op.name, op.config_field) for op in definition.iterate_op_defs())
    types = {
        repr((name, field.config_type.key, field.default_provided and field.default_value))
        for name, field in fields
        if field is not None and field.config_type.key != "Any"
    }
    return sorted(types) or None


def _preset(definition: Any) -> Any:
    """What `configured` has set of an executor or logger; None without that."""
    if type(getattr(definition, "config_schema", None)).__name__ != _CONFIGURED:
        return None
    result = definition.apply_config_mapping({"config": {}})
    return result.value if result.success else None


def _check(node: Any, made_by: Any) -> dict[str, Any]:
    return {
        "dependencies": _keys(getattr(node, "parent_entity_keys", ())),
        "blocking": node.blocking,
        "automation": _automation(node.automation_condition),
        "description": _text(node.description),
        **_if_any(
            {
                "metadata": _metadata(node.metadata),
                "partitions": _partitions(node.partitions_def),
            }
        ),
        **_computation(made_by),
    }


def _job(job: Any) -> dict[str, Any]:
    layer = job.asset_layer
    selected = layer.selected_asset_keys
    checks = getattr(job.asset_layer.asset_graph, "asset_check_keys", ())
    return {
        "assets": _keys(selected),
        "ops": [] if selected else sorted(job.graph.node_dict),
        "partitions": _partitions(job.partitions_def),
        "tags": dict(sorted(job.tags.items())),
        **_if_any(
            {
                "asset checks": sorted(map(check_name, checks)),
                "description": _text(job.description),
                "metadata": _metadata(job.metadata),
                "owners": sorted(getattr(job, "owners", None) or ()),
                "run tags": _texts(getattr(job, "run_tags", None) or {}),
                "automation": _automation(getattr(job, "automation_condition", None)),
                "executor": job.executor_def.name,
                "loggers": sorted(job.loggers),
                "hooks": sorted(hook.name for hook in job.hook_defs),
                "retries": _text(job.op_retry_policy),
                "resources": [] if selected else sorted(job.required_resource_keys),
                **({} if selected else _wired(job.graph)),
                CONFIGURATION: _secret(_configuration_of(job, selected)),
            }
        ),
    }


def _configuration_of(job: Any, selected: Any) -> Any:
    """The run config, and what is set of the executor and the loggers."""
    presets = {
        name: preset
        for name, it in {"executor": job.executor_def, **job.loggers}.items()
        if (preset := _preset(it)) is not None
    }
    accepted = None if selected else _config_types(job.graph)
    given = job.run_config or None
    return (given, presets, accepted) if given or presets or accepted else None


def _launched(targets: Any, jobs: dict[str, Any]) -> dict[str, Any]:
    """What a schedule or sensor launches: jobs, and the assets of those without a name."""
    names = [name for it in targets if (name := getattr(it, "job_name", None))]
    anonymous = [jobs[name] for name in names if name.startswith(_UNNAMED_JOBS) and name in jobs]
    return {
        "jobs": sorted(name for name in names if not name.startswith(_UNNAMED_JOBS)),
        "assets": sorted(
            {key for job in anonymous for key in _keys(job.asset_layer.selected_asset_keys)}
        ),
        "ops": sorted({op for it in targets for op in getattr(it, "op_selection", None) or ()}),
    }


def _automatic(automation: Any) -> dict[str, Any]:
    """What schedules and sensors have in common."""
    return _if_any(
        {
            "description": _text(automation.description),
            "metadata": _metadata(automation.metadata),
            "owners": sorted(getattr(automation, "owners", None) or ()),
            "tags": _texts(automation.tags),
            "resources": sorted(automation.required_resource_keys),
        }
    )


def _schedule(schedule: Any, jobs: dict[str, Any]) -> dict[str, Any]:
    launched = _launched([schedule.target], jobs)
    return {
        "cron": _text(schedule.cron_schedule),
        "timezone": schedule.execution_timezone,
        "job": schedule.job_name,
        "status": schedule.default_status.value,
        **_automatic(schedule),
        **_if_any(
            {
                "assets": launched["assets"],
                "ops": launched["ops"],
                CONFIGURATION: _secret(_configuration(schedule)),
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
    assets = _keys(selection.resolve(graph)) if selection is not None else launched["assets"]
    watched = [getattr(sensor, "asset_key", None), *(getattr(sensor, "_monitored_assets", ()))]
    watched_jobs = map(_watched, getattr(sensor, "_monitored_jobs", None) or ())
    condition = getattr(sensor, "default_condition", None)
    return {
        "type": sensor.sensor_type.value,
        "jobs": launched["jobs"],
        "assets": assets,
        "interval": sensor.minimum_interval_seconds,
        "status": sensor.default_status.value,
        **_automatic(sensor),
        **_if_any(
            {
                "ops": launched["ops"],
                "watched assets": _keys(key for key in watched if hasattr(key, "to_user_string")),
                "watched jobs": sorted(watched_jobs),
                "watched runs": getattr(getattr(sensor, "_run_status", None), "value", None),
                "all code locations": getattr(sensor, "_monitor_all_code_locations", None) or None,
                "run tags": _texts(getattr(sensor, "run_tags", None) or {}),
                "backfills": getattr(sensor, "emit_backfills", None),
                "condition": _automation(condition),
            }
        ),
    }


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
            "type": _class_of(resource),
            "variables": sorted(variable for variable, by in used.items() if name in by),
            **_if_any(
                {
                    "description": _text(resource.description),
                    "version": getattr(resource, "version", None),
                    "resources": sorted(getattr(resource, "nested_resources", None) or ()),
                    CONFIGURATION: _secret(_configured(resource)),
                }
            ),
        }
        for name, resource in repository.get_top_level_resources().items()
    }


def _configured(resource: Any) -> Any:
    """The values of a resource and of those that it is made of."""
    schema = resource.config_schema
    own = schema.default_value_as_json_str if schema and schema.default_provided else None
    nested = getattr(resource, "nested_resources", None) or None
    return (own, nested) if own or nested else None


def _class_of(resource: Any) -> str:
    kind: Any = getattr(resource, "configurable_resource_cls", None) or type(resource)
    function: Any = getattr(resource, "resource_fn", None)
    if kind.__name__ == "ResourceDefinition" and hasattr(function, "__qualname__"):
        # Dagster wraps an object that is no resource in a function that returns it.
        closure = (it.cell_contents for it in function.__closure__ or ())
        is_wrapped = ".hardcoded_resource." in function.__qualname__
        kind = type(next(closure)) if is_wrapped else function
    return f"{kind.__module__}.{kind.__qualname__}"


# --- values -----------------------------------------------------------------------------------


def _if_any(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something: most definitions have few of them."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _key(key: Any) -> str:
    """As Dagster shows it. A slash in a part of the key is escaped: a/b is not [a, b]."""
    return str(getattr(key, "to_escaped_user_string", key.to_user_string)())


def _keys(keys: Any) -> list[str]:
    return sorted(map(_key, keys))


def _texts(values: Any, name_of: Callable[[Any], str] = str) -> dict[str, str | None]:
    return {name_of(name): _text(value) for name, value in values.items()}


def _metadata(metadata: Any) -> dict[str, str | None]:
    """Without paths of code, which are other ones on each machine, and without the objects of
    integrations: Dagster does not show them either."""
    found = {name: value for name, value in metadata.items() if name not in _CODE_METADATA}
    plain = {name: _unwrapped(value) for name, value in found.items() if _is_plain(value)}
    return dict(sorted(_texts(plain).items()))


def _unwrapped(value: Any) -> Any:
    is_wrapped = type(value).__name__.endswith("MetadataValue")
    return getattr(value, "value", value) if is_wrapped else value


def _is_plain(value: Any) -> bool:
    is_shown = type(value).__module__.partition(".")[0] in ("builtins", "dagster")
    return is_shown and not _ADDRESS.search(repr(value))


def _automation(condition: Any) -> str | None:
    """The label, and a digest of the rest: a condition can change and keep its label."""
    if condition is None:
        return None
    text = repr(condition)
    if _ADDRESS.search(text):  # of a class that does not show its attributes
        text += repr([vars(it) for it in _with_children(condition) if hasattr(it, "__dict__")])
    text = _stable(text)
    return _bounded(f"{condition.get_label() or text}{DIGESTED}{text}")


def _with_children(condition: Any) -> list[Any]:
    return [condition, *(it for child in condition.children for it in _with_children(child))]


def _partitions(partitions: Any) -> str | None:
    """As Dagster describes them; that leaves out the name of dynamic ones and formats of times."""
    text = _text(partitions)
    is_listed = type(partitions).__name__ == "StaticPartitionsDefinition"
    if text is None or is_listed:
        return text
    return _bounded(f"{text}{DIGESTED}{_stable(repr(partitions))}")


def _text(value: Any) -> str | None:
    return None if value is None else _bounded(_stable(str(value)))


def _secret(value: Any) -> str | None:
    """A digest that only the request that salted it can compare: a value may be a credential."""
    return None if value is None else digest(f"{_salt}{_stable(repr(value))}")


def digest(value: Any) -> str:
    """A short digest of a text, or of how another value is written."""
    text = value if isinstance(value, str) else _stable(repr(value))
    return f"#{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def _stable(text: str) -> str:
    """Text without what is another one at each load: addresses, and the folder of the states."""
    for folder in sorted(_FOLDERS, key=len, reverse=True):
        text = _FOLDERS[folder].sub("…", text)
    return _ADDRESS.sub("", text)


def _bounded(text: str) -> str:
    """The whole text: secrets are removed from it by its reader, who then cuts it."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… {digest(text)}"
