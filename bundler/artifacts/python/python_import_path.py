"""Where state belongs in an artifact that Python imports from: a PEX, a wheel.

Such an artifact consists of trees, each of which Python imports from. State belongs next to the
package that is imported, in the tree that contains it. A copy of the package where nobody imports
it (``src/shop`` instead of ``shop``) is useless, and state next to it proves nothing, so it is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from bundler.artifacts.python.trees import NewFile, Tree, TreeChange, prefixes
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.bundle import STATE_DIRECTORY, Bundle
from bundler.state.manifest import Claim, RunRecord
from bundler.state.tree import fold

_MAX_CANDIDATES = 5
_MAX_TEXT_BYTES = 1024 * 1024


class TreePlan(msgspec.Struct, frozen=True):
    """The changes that embed the bundles, by the tree's path."""

    changes: Mapping[str, TreeChange]
    claims: tuple[Claim, ...]
    record: RunRecord


def plan(
    name: str,
    trees: Sequence[Tree],
    claims: Sequence[Claim],
    bundles: Sequence[Bundle],
    record: RunRecord,
    *,
    dagster: bool,
) -> TreePlan:
    """Finds each bundle's place and computes the changes.

    name: of the artifact. claims: about its present states. dagster: whether the artifact requires
    Dagster; a package that Dagster loads needs a dg.toml or pyproject.toml above it. Raises
    `ConfigurationError` if a package is not importable, `VerificationFailed` if there is state
    without a claim.
    """
    places = {bundle.place: importable(name, trees, bundle.place) for bundle in bundles}
    paths = {place: tree.at(place) for place, tree in places.items()}
    new = tuple(bundle.manifest.claim(paths[bundle.place]) for bundle in bundles)
    kept = _kept_claims(name, trees, claims, {claim.path for claim in new})
    extra = _configuration(trees, places, dagster=dagster)
    changes = {
        tree.path: _change([b for b in bundles if places[b.place] is tree], extra.get(tree.path))
        for tree in places.values()
    }
    return TreePlan(changes, new + kept, record.moved(paths))


def _change(bundles: Sequence[Bundle], extra: Mapping[str, NewFile] | None) -> TreeChange:
    added = {
        f"{bundle.place}/{member.path}": NewFile(member.open, member.size, member.sha256)
        for bundle in bundles
        for member in bundle.members()
    }
    return TreeChange({**added, **(extra or {})}, tuple(bundle.place for bundle in bundles))


def importable(name: str, trees: Sequence[Tree], place: str) -> Tree:
    """The tree from which the package next to which the state belongs is imported.

    place: of the state directory, such as ``shop/defs/.local_defs_state``.
    Raises `ConfigurationError` if there is none, or more than one, with the candidates.
    """
    package = place.rpartition("/")[0]
    if package and not place.endswith(f"/{STATE_DIRECTORY}"):
        # A folder of the package may contain nothing but the state; Dagster's contains the module.
        above = prefixes(package)[::-1]
        there = (it for it in above if any(_has_package(tree, it, place) for tree in trees))
        package = next(there, above[-1])
    found = [tree for tree in trees if _has_package(tree, package, place)]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(tree.at(package) for tree in found)
        raise ConfigurationError(
            f"{name} contains {package} more than once: {places}. Python imports only one of them.",
            hint="Remove `-D` or `-P` for a package that a wheel contains, or the wheel.",
        )
    inner = _inner(trees, place)
    raise ConfigurationError(
        f"{package} cannot be imported from {name}, so its state would never be found. "
        f"{_candidates(trees, package, place)}",
        hint=f'If the program looks for it in {inner}, set place = "{inner}" for its '
        "[[tool.state-bundler.source]]."
        if inner
        else "In the project, keep the package at the top or in `src`, under its name in the wheel."
        if name.endswith(".whl")
        else "Pass pex the folder from which Python imports it: `-D src` for `src/shop`.",
    )


def deceptions(trees: Sequence[Tree]) -> Iterator[str]:
    """Where Python would import or find something other than the state that was read, as messages.

    Finds a folder that some file systems do not distinguish from a state directory, a package that
    another tree shadows, and files that an installer writes over those of the package.
    """
    for tree in trees:
        for found in tree.state_directories():
            for twin in tree.twins_of(found.relative):
                yield f"{tree.at(twin)} and {found.path} differ only by case or Unicode form."
            for other in trees:
                if other is not tree:
                    yield from _shadows(other, found.relative, tree)
                yield from _put_over(other, found.relative, tree)


def _shadows(other: Tree, place: str, tree: Tree) -> Iterator[str]:
    """Names in another tree under which Python looks for the package of a state."""
    package = place.rpartition("/")[0]
    if package and _has_package(other, package, place):
        yield f"{other.at(package)} is another copy of {tree.at(package)}."
    names = tuple(prefixes(package)) if package else ()
    likely = [path for path in other.leaves if path.startswith(names)]
    for prefix in names:
        for path in likely:
            if not path.startswith(prefix):
                continue
            rest = path[len(prefix) :]
            module = rest.startswith(".") and "/" not in rest and rest.endswith(_MODULES)
            init = rest.startswith("/__init__.") and "/" not in rest[1:] and rest.endswith(_MODULES)
            if module or (init and not _is_namespace(other, path)):
                yield f"{other.at(path)} can be imported instead of {tree.at(prefix)}."


_MODULES = (".py", ".pyc", ".so", ".pyd")
# By Python, and by Dagster.
_READ = (*_MODULES, ".toml", ".yaml", ".yml")
# How namespace packages were made before Python supported them.
_NAMESPACE = (b"declare_namespace", b"extend_path")
_MAX_NAMESPACE_BYTES = 4096


def _is_namespace(tree: Tree, path: str) -> bool:
    if not path.endswith(".py") or tree.leaves[path].size > _MAX_NAMESPACE_BYTES:
        return False
    source = tree.read(path)
    return any(name in source for name in _NAMESPACE)


def _put_over(other: Tree, place: str, tree: Tree) -> Iterator[str]:
    """Files of a wheel's ``*.data`` folder, or of pex's ``.prefix``, that an installer writes
    into a state, or over an existing file; or that are read with the package of a state."""
    package = place.rpartition("/")[0]
    state, neighbours = f"{fold(place)}/", f"{fold(package)}/"
    files: set[str] | None = None
    for path in other.leaves:
        for name in _installed_as(path):
            folded = fold(name)
            if files is None:
                files = {fold(leaf) for leaf in tree.leaves}
            over = (
                folded in files
                or folded.startswith(state)
                or (folded.startswith(neighbours) and folded.endswith(_READ))
                or state.startswith(f"{folded}/")
            )
            if over:
                how = "over" if folded in files else "as"
                yield f"{other.at(path)} is installed {how} {tree.at(name)}."


def _installed_as(path: str) -> list[str]:
    """The paths, relative to the import root, to which an installer may write a file."""
    if ".data/" not in path and not path.startswith(_PEX_PREFIX):
        return []  # as for almost all of tens of thousands
    top, _, rest = path.partition("/")
    if top == _PEX_PREFIX:
        scheme = "data"
    elif top.endswith(".data"):
        scheme, _, rest = rest.partition("/")
    else:
        return []
    if scheme in ("purelib", "platlib"):
        return [rest]
    # With --target, the scheme's folder is below the packages; otherwise they are below it.
    folder = {"scripts": "bin/", "headers": "include/"}.get(scheme, "")
    return [folder + rest, *_SITE.split(rest, maxsplit=1)[1:]]


_PEX_PREFIX = ".prefix"
_SITE = re.compile(r"(?:^|.*/)(?:site-packages|dist-packages|lib/python)/")


def _has_package(tree: Tree, package: str, place: str) -> bool:
    return any(not f"{package}/{path}".startswith(f"{place}/") for path, _ in tree.below(package))


def _inner(trees: Sequence[Tree], place: str) -> str | None:
    """The place without the outermost folders, if a package is there: of ``lib/shop/state``,
    Python may import ``shop``."""
    parts = place.split("/")
    likely = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    return next(
        (it for it in likely for tree in trees if _has_package(tree, it.rpartition("/")[0], it)),
        None,
    )


def _candidates(trees: Sequence[Tree], package: str, place: str) -> str:
    wanted = f"/{package}/"
    inside = f"/{place}/"
    found = {
        tree.at(path[: path.index(wanted) + len(wanted) - 1])
        for tree in trees
        for path in tree.leaves
        if wanted in path and inside not in path
    }
    if not found:
        return "It does not contain such a package."
    return f"It contains it under another name: {', '.join(sorted(found)[:_MAX_CANDIDATES])}."


def _kept_claims(
    name: str, trees: Sequence[Tree], claims: Sequence[Claim], replaced: set[str]
) -> tuple[Claim, ...]:
    """The claims about state directories that stay unchanged."""
    there = {found.path for tree in trees for found in tree.state_directories()}
    unknown = sorted(there - replaced - {claim.path for claim in claims})
    if unknown:
        raise VerificationFailed(
            f"{name} contains state that was not refreshed for it: {', '.join(unknown)}.",
            hint=(
                "Leave it out in the build backend's settings"
                if name.endswith(".whl")
                else "Pass pex only the folder from which Python imports the package"
            )
            + ", or select the project that this state belongs to with --project.",
        )
    return tuple(claim for claim in claims if claim.path in there - replaced)


# --- what Dagster needs next to the package ------------------------------------------------------


def _configuration(
    trees: Sequence[Tree], places: Mapping[str, Tree], *, dagster: bool
) -> dict[str, dict[str, NewFile]]:
    """dg.toml, by its tree's path, if Dagster would look for one and find nothing: without it
    nothing loads.

    It is in the package: at the top, each wheel in an environment would replace that of the others.
    """
    wanted: dict[tuple[str, str], set[bytes]] = {}
    for place, tree in places.items():
        if (
            place.endswith(f"/{STATE_DIRECTORY}")
            # With --venv, the code at the top and all distributions end up in one folder.
            and not any(_configures(other, place) for other in (tree, trees[0]))
            and (dagster or _names_dagster(tree, place))
        ):
            path = f"{_own_folder(tree, place)}/dg.toml"
            wanted.setdefault((tree.path, path), set()).add(_dg_toml(place))
    found: dict[str, dict[str, NewFile]] = {}
    for (where, path), texts in wanted.items():
        # Of several state directories in one package, `defs` has that of Dagster.
        likely = [text for text in texts if b"defs_module" not in text] or list(texts)
        if len(likely) == 1:
            found.setdefault(where, {})[path] = NewFile.of(likely[0])
    return found


def _own_folder(tree: Tree, place: str) -> str:
    """The outermost package that is not a namespace of several distributions."""
    packages = prefixes(place)[:-1]
    regular = (it for it in packages if f"{it}/__init__.py" in tree.leaves)
    return next(regular, packages[-2] if len(packages) > 1 else packages[0])


def _names_dagster(tree: Tree, place: str) -> bool:
    """Whether the package is Dagster's though no requirement says so: in the metadata Dagster may
    have another spelling, or come with another distribution."""
    for path, leaf in tree.below(place.partition("/")[0]):
        if path.endswith((".py", ".yaml", ".yml")) and leaf.kind == "file":
            with leaf.open() as stream:
                if b"dagster" in stream.read(_MAX_TEXT_BYTES):
                    return True
    return False


def _configures(tree: Tree, place: str) -> bool:
    """Whether Dagster finds the project's configuration in this tree."""
    return any(
        _names_root_module(tree, f"{folder}{name}", place)
        for folder in _folders_above(place)
        for name in ("dg.toml", "pyproject.toml")
    )


def _folders_above(place: str) -> Iterator[str]:
    """Each with its slash; the tree's top is the empty string."""
    parts = place.split("/")
    return ("".join(f"{part}/" for part in parts[:end]) for end in range(len(parts)))


def _names_root_module(tree: Tree, path: str, place: str) -> bool:
    leaf = tree.leaves.get(path)
    if leaf is None:
        return False
    root = re.escape(place.partition("/")[0].encode())
    with leaf.open() as stream:
        text = stream.read(_MAX_TEXT_BYTES)
    return re.search(rb"root_module\s*=\s*[\"']+" + root + rb"[\"'.]", text) is not None


def _dg_toml(place: str) -> bytes:
    package = place.removesuffix(f"/{STATE_DIRECTORY}").replace("/", ".")
    root = package.partition(".")[0]
    lines = ['directory_type = "project"', "", "[project]", f'root_module = "{root}"']
    if package != f"{root}.defs":
        lines.append(f'defs_module = "{package}"')
    return ("\n".join(lines) + "\n").encode()
