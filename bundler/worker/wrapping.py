"""Replaces methods of libraries that are imported, and of all others when they are imported.

Runs inside the component's process: the standard library only. `patches.py` has the replacements. A
library that lacks a method is reported as ``blind``: that fails every key.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bundler.worker.recorder import Recorder

    Replacement = Callable[[Recorder, "Call"], Any]
    # A module, a class (if empty: the module itself), names of methods, and what replaces them. A
    # ``?`` follows the name of a method that not every supported version has.
    Patch = tuple[str, str, str, Replacement]


def install(patches: Iterable[Patch], recorder: Recorder) -> None:
    """Wraps the libraries that are imported, and every other one when it is imported."""

    def wrap(name: str, module: ModuleType) -> None:
        _wrap(name, module, patches, recorder)

    names = {name for name, *_ in patches}
    for name in names & sys.modules.keys():
        wrap(name, sys.modules[name])
    sys.meta_path.insert(0, _Waiting(names - sys.modules.keys(), wrap))


class _Waiting:
    """Wraps a library at the end of its import."""

    def __init__(self, names: set[str], wrap: Callable[[str, ModuleType], None]) -> None:
        self._names = names
        self._wrap = wrap

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self._names:
            return None
        self._names.remove(name)
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                _after_import(spec, self._wrap)
                return spec  # type: ignore[no-any-return]  # finders are not typed
        return None


def _after_import(spec: ModuleSpec, wrap: Callable[[str, ModuleType], None]) -> None:
    loader = spec.loader
    if loader is None:
        return
    original = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        original(module)
        if module.__name__ == spec.name:  # a zip's loader serves many modules
            wrap(spec.name, module)

    loader.exec_module = exec_module  # type: ignore[method-assign]  # one loader a module


def _wrap(name: str, module: ModuleType, patches: Iterable[Patch], recorder: Recorder) -> None:
    """name: by which programs import the module; that of its file may be another."""
    for of, owner, methods, replacement in patches:
        for method in methods.split() if of == name else ():
            kind = getattr(module, owner, None) if owner else module
            original = getattr(kind, method.rstrip("?"), None)
            if original is not None:
                setattr(kind, method.rstrip("?"), _wrapped(original, replacement, recorder))
            elif not method.endswith("?"):
                recorder.blind(name.partition(".")[0], f"{name}.{owner}.{method}")


def _wrapped(method: Any, replacement: Replacement, recorder: Recorder) -> Any:
    is_property = isinstance(method, property)
    original = method.fget if is_property else getattr(method, "__func__", method)  # class method

    @functools.wraps(original)
    def wrapped(of: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(recorder, Call(original, of, args, kwargs))

    if is_property:
        return property(wrapped)
    return wrapped if original is method else classmethod(wrapped)


class Call:
    """A call of a method that was replaced; calling it calls that method."""

    def __init__(self, method: Any, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.of = of
        self._method = method
        self._args = args
        self._kwargs = kwargs

    def __call__(self, **more: Any) -> Any:
        return self._method(self.of, *self._args, **{**self._kwargs, **more})

    def argument(self, position: int | None, name: str, default: Any = None) -> Any:
        """position: None for an argument that only has a name."""
        if position is not None and position < len(self._args):
            return self._args[position]
        return self._kwargs.get(name, default)
