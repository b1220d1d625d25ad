"""Filters what a component copies into its state with ``shutil.copytree``.

dagster-dbt copies a whole project. What git ignores in it is not part of the project: local keys,
credentials, caches. It is left out, except for what dbt itself has made and needs at run time. A
directory that git ignores completely is copied: the component named it.

This runs in the project's interpreter, so it only imports the standard library.
"""

from __future__ import annotations

import os
import re
import shutil

# `typing` takes longer than everything else here: only the names of types need it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_GIT = ("git", "--no-pager", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_GIT_SECONDS = 30.0
_NOT_IGNORED = 1
_MOST_TOLD = 100
# For dbt's target directory, and for the states of other runs that are kept below it.
_PARSED = ("manifest.json", "partial_parse.msgpack", "semantic_manifest.json")
_OF_OTHER_RUNS = (*_PARSED, "run_results.json", "sources.json")
_NOT_READ = ("compiled", "run")


class GitError(Exception):
    """git could not say what it ignores."""


def filter_copies(
    directory: str, leave_out: list[str], keep: list[str], report: Callable[..., None]
) -> None:
    """From now on, filters what is copied below a key directory, and reports what is left out.

    leave_out, keep: patterns of paths below that directory, see `bundler.refresh.checks`.
    """
    # All callers of copytree end up here, including those that have imported it by name.
    copy = shutil._copytree  # type: ignore[attr-defined]  # noqa: SLF001

    def filtered(**options: Any) -> Any:
        target = os.path.realpath(options["dst"])
        if isinstance(options["ignore"], _Filter) or not f"{target}/".startswith(f"{directory}/"):
            return copy(**options)
        below = os.path.relpath(target, directory)
        source = os.path.abspath(options["src"])
        try:
            chosen = _Filter(source, below, options["ignore"], leave_out, keep)
        except GitError as error:  # whatever the component does with it
            report("uncopied", reason=str(error))
            raise
        try:
            return copy(**{**options, "ignore": chosen})
        finally:
            report("copied", source=source, target=below, **chosen.told())

    directory = os.path.realpath(directory)
    shutil._copytree = filtered  # type: ignore[attr-defined]  # noqa: SLF001  # for this process


class _Filter:
    """An ``ignore`` argument of copytree."""

    def __init__(
        self,
        source: str,
        below: str,
        theirs: Callable[[str, list[str]], Iterable[str]] | None,
        leave_out: list[str],
        keep: list[str],
    ) -> None:
        self._source = source
        self._below = "" if below == "." else f"{below}/"
        self._theirs = theirs
        self._leave_out = leave_out
        self._keep = keep
        self._ignored = ignored_below(source)
        self._ignored_in: dict[str, frozenset[str]] = {}  # by the package of dbt
        self._left_out: list[str] = []
        self._left_ignored: list[str] = []

    def __call__(self, folder: str, names: list[str]) -> set[str]:
        left = set(self._theirs(folder, names)) if self._theirs is not None else set()
        here = os.path.relpath(folder, self._source)
        prefix = "" if here == "." else f"{here}/"
        for name in names:
            if name not in left and self._leaves(f"{prefix}{name}"):
                left.add(name)
        return left

    def _leaves(self, path: str) -> bool:
        """Whether to leave out a path, which is relative to the source."""
        shown = f"{self._below}{path}"
        if any_match(shown, self._keep) or any(
            pattern.startswith(f"{shown}/") for pattern in self._keep
        ):
            return False
        here = os.path.join(self._source, path)
        if any_match(shown, self._leave_out) or os.path.isfile(os.path.join(here, "pyvenv.cfg")):
            self._left_out.append(shown)
            return True
        if is_ignored(path, self._ignored) and not self._is_needed(path):
            self._left_ignored.append(shown)
            return True
        return False

    def _is_needed(self, path: str) -> bool:
        """dbt installs a local package as a link: what git ignores is judged where it is."""
        for parent in _with_parents(path.rpartition("/")[0]):
            package, inner = os.path.join(self._source, parent), path[len(parent) + 1 :]
            if not os.path.islink(package) or not os.path.isfile(f"{package}/dbt_project.yml"):
                continue
            if parent not in self._ignored_in:
                self._ignored_in[parent] = ignored_below(package)
            if is_ignored(inner, self._ignored_in[parent]) and not is_needed_by_dbt(package, inner):
                return False
        return is_needed_by_dbt(self._source, path)

    def told(self) -> dict[str, Any]:
        return {
            "left_out": sorted(self._left_out)[:_MOST_TOLD],
            "ignored": sorted(self._left_ignored)[:_MOST_TOLD],
            "ignored_count": len(self._left_ignored),
        }


def any_match(path: str, patterns: Iterable[str]) -> bool:
    """A pattern with a slash applies to the whole path, otherwise to its last name."""
    from fnmatch import fnmatchcase

    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


# --- git --------------------------------------------------------------------------------------


def ignored_below(source: str) -> frozenset[str]:
    """What git ignores below a directory; of a directory whose files are all ignored only its name.

    Empty outside of a repository, and if git ignores the directory itself.
    """
    above = (*_with_parents(os.path.realpath(source)), "")  # "" leads to the root
    if not any(os.path.lexists(f"{parent}/.git") for parent in above):
        return frozenset()
    if _git(source, "check-ignore", "-q", ".")[0] == 0:
        return frozenset()
    options = ("-z", "--others", "--ignored", "--exclude-standard", "--directory")
    code, output = _git(source, "ls-files", *options, "--", ".")
    if code:
        raise GitError(f"git cannot list what it ignores in {source}")
    return frozenset(os.fsdecode(path).rstrip("/") for path in output.split(b"\0") if path)


def is_ignored(path: str, ignored: frozenset[str]) -> bool:
    """Whether git ignores a path, or a directory above it."""
    return any(part in ignored for part in _with_parents(path))


def _git(directory: str, *arguments: str) -> tuple[int, bytes]:
    import subprocess

    # A hook's repository may be another one.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_CEILING"))
    }
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(  # an argv list
            [*_GIT, "-C", directory, *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=_GIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"git did not list what it ignores in {directory} within {_GIT_SECONDS:g} s"
        ) from error
    except OSError as error:
        raise GitError(f"git cannot list what it ignores in {directory}: {error}") from error
    if done.returncode not in (0, _NOT_IGNORED):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise GitError(f"git cannot list what it ignores in {directory}: {(said or ['?'])[-1]}")
    return done.returncode, done.stdout


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


# --- dbt --------------------------------------------------------------------------------------


def is_needed_by_dbt(source: str, path: str) -> bool:
    """Whether a file or directory was made by dbt and is read at run time."""
    for parent in (*_with_parents(path.rpartition("/")[0]), ""):
        project = os.path.join(source, parent)
        declaration = os.path.join(project, "dbt_project.yml")
        inner = path[len(parent) + 1 :] if parent else path
        # An installed package is a project, too: the one above it needs its files.
        if os.path.isfile(declaration) and _is_needed(project, declaration, inner):
            return True
    return False


def _is_needed(project: str, declaration: str, path: str) -> bool:
    with open(declaration, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    packages = _declared(text, "packages-install-path") or "dbt_packages"
    is_of_packages = path.startswith(f"{packages}/") or _is_on_the_way(path, packages)
    if path == "package-lock.yml" or is_of_packages:
        return True
    declared = (_declared(text, "target-path"), os.environ.get("DBT_TARGET_PATH"), "target")
    targets = [os.path.normpath(one) for one in declared if one]
    if any(_is_on_the_way(path, target) for target in targets):
        return True
    for parent in _with_parents(path):
        if parent in targets or is_target(os.path.join(project, parent)):
            return parent == path or _is_read(project, path, path[len(parent) + 1 :])
    return False


def is_target(directory: str) -> bool:
    """Whether dbt has parsed its project into this directory, whatever its name."""
    manifest, *others = (os.path.isfile(os.path.join(directory, name)) for name in _PARSED)
    return manifest and any(others)


def _is_on_the_way(path: str, wanted: str) -> bool:
    return f"{wanted}/".startswith(f"{path}/")


def _is_read(project: str, path: str, inner: str) -> bool:
    """inner: relative to the target directory."""
    if os.path.isdir(os.path.join(project, path)):
        return inner not in _NOT_READ
    return os.path.basename(inner) in (_OF_OTHER_RUNS if "/" in inner else _PARSED)


def _declared(text: str, name: str) -> str | None:
    found = re.search(rf"(?m)^{name}:[ \t]*[\"']?([^\"'#\s]+)", text)
    return found[1].rstrip("/") if found else None
