"""How resources, executors, loggers and ops are configured. The values may be credentials.

The second part of the program of `bundler.worker.definitions`.
"""

from __future__ import annotations

from bundler.worker.values import CONFIGURATION, address_free, digest, secret_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CONFIGURED = "ConfiguredDefinitionConfigSchema"
_DEFAULT_IO_MANAGER = "io_manager"
_SIMPLE = (str, int, float, list, tuple, dict)
_TYPES: dict[tuple[Any, ...], str] = {}


def own_resources(owner: Any, shared: Mapping[str, Any], configuration: Any) -> dict[str, Any]:
    """The resources of an asset or a job that are not those of the code location, with their
    values in the rest of the configuration."""
    own = {
        name: resource
        for name, resource in sorted(owner.resource_defs.items())
        if name != _DEFAULT_IO_MANAGER and resource is not shared.get(name)
    }
    values = {name: it for name, one in own.items() if (it := configured(one)) is not None}
    return {
        "own resources": {name: class_of(resource) for name, resource in own.items()},
        CONFIGURATION: secret_digest((configuration, values) if configuration or values else None),
    }


def configured(resource: Any) -> Any:
    """The values of a resource and of those that it is made of, and what a run may still set."""
    inner = getattr(resource, "nested_resources", None) or {}
    nested = {name: (it, _attributes(it)) for name, it in inner.items()} or None
    schema = resource.config_schema
    own = schema.default_value_as_json_str if schema and schema.default_provided else None
    parts = (
        own,
        nested,
        preset_of(resource),
        accepted_by(resource.config_field),
        _values_of(resource),
    )
    return parts if any(it is not None for it in parts) else None


def _object_in(resource: Any) -> Any:
    """The object in the function that Dagster wraps it in if it is no resource; else None."""
    function: Any = getattr(resource, "resource_fn", None)
    if ".hardcoded_resource." not in getattr(function, "__qualname__", ""):
        return None
    return next((it.cell_contents for it in function.__closure__ or ()), None)


def _values_of(resource: Any) -> Any:
    """A plain object, or the plain attributes of another one."""
    value = _object_in(resource)
    return value if value is None or address_free(value) else _attributes(value)


def _attributes(value: Any) -> dict[str, Any]:
    named = getattr(value, "__dict__", {}).items()
    return {name: it for name, it in named if isinstance(it, _SIMPLE) and address_free(it)}


def class_of(resource: Any) -> str:
    kind: Any = getattr(resource, "configurable_resource_cls", None) or type(resource)
    function: Any = getattr(resource, "resource_fn", None)
    if kind.__name__ == "ResourceDefinition" and hasattr(function, "__qualname__"):
        value = _object_in(resource)
        kind = function if value is None else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def accepted_by(field: Any) -> Any:
    """The type of a configuration, and its default; None if anything is accepted."""
    if field is None or field.config_type.key == "Any":
        return None
    kind = field.config_type
    choices = {(it.key, *_choices(it)) for it in kind.type_iterator() if _choices(it)}
    same = kind.key, tuple(sorted(choices))
    if same not in _TYPES:  # a class may be the configuration of thousands
        _TYPES[same] = digest(_type(kind))
    default = field.default_value if field.default_provided else None
    return _TYPES[same], field.default_provided, default


def _choices(kind: Any) -> list[str]:
    return sorted(str(it.config_value) for it in getattr(kind, "enum_values", ()))


def _field(field: Any) -> tuple[Any, ...]:
    default = field.default_value if field.default_provided else None
    details = field.description, field.is_required, field.default_provided, default
    return _type(field.config_type), *details


def _type(kind: Any) -> tuple[Any, ...]:
    """Without the key of a type with fields, a digest of their defaults: those may be paths."""
    if fields := getattr(kind, "fields", None):
        aliases = getattr(kind, "field_aliases", None)
        below = {name: _field(it) for name, it in fields.items()}
        return kind.kind.value, kind.description, below, aliases
    if kind.type_params:
        return kind.kind.value, kind.given_name, [*map(_type, kind.type_params)]
    return kind.key, _choices(kind)


def preset_of(definition: Any) -> Any:
    """What `configured` has set of an executor or logger; None without that."""
    if type(getattr(definition, "config_schema", None)).__name__ != _CONFIGURED:
        return None
    result = definition.apply_config_mapping({"config": {}})
    return result.value if result.success else None
