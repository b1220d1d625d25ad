"""JSON that was changed anywhere, in a manifest, a run record and PEX-INFO.

Whatever it holds, `verify` gives a verdict; and what it accepts is byte for byte what is there.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler import verify_at_start
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, RunRecord, canonical, parse
from bundler.state.statedir import StateDir
from bundler.workflows.policy import Policy, judge, subject_of
from tests.support.examples import scaled
from tests.support.statedirs import publish, rewrite_manifest

_settings = settings(max_examples=scaled(150), suppress_health_check=list(HealthCheck))
_TEXTS = ["0" * 64, "..", "a/b", "@staging", "state", "2026-13-45T99:99:99Z", "\ud800", "1.5"]
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(_TEXTS)
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


_JSON = st.recursive(_LEAVES, _containers, max_leaves=4)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a document."""
    yield path
    names = (
        value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    )
    for name in names:
        yield from places(value[name], (*path, name))


def changed(document: Any, data: st.DataObject) -> Any:
    """The document with one value replaced, removed, added or doubled."""
    result = copy.deepcopy(document)
    *way, last = data.draw(st.sampled_from([path for path in places(document) if path]))
    parent = result
    for name in way:
        parent = parent[name]
    kind = data.draw(st.sampled_from(["replace", "remove", "add", "double", "swap"]))
    if kind == "replace":
        parent[last] = data.draw(_JSON)
    elif kind == "remove":
        del parent[last]
    elif isinstance(parent, dict):
        parent[data.draw(st.text(max_size=5))] = data.draw(_JSON)
    elif kind == "double":
        parent.append(copy.deepcopy(parent[last]))
    else:
        parent.reverse()
    return result


def accepts(path: Path) -> bool:
    try:
        with open_artifact(str(path)) as artifact:
            verdict = verify(artifact)
            if not verdict.all_problems:
                policy = Policy(max_age=1.0, no_stale=True, min_entries={"*": 1}, commit="a" * 40)
                judge(policy, subject_of(policy, artifact, verdict, 0.0))
            return not verdict.all_problems
    except BundlerError as error:
        if error.exit_code != 76:
            raise
        return False


def dumped(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s") / ".local_defs_state"
    states = {"Shop[eu]": {"state": "{}"}, "dbt": {"state": "", "a/é": "x"}}
    made = publish(StateDir(path, "x"), states).bundle.manifest
    keys = (KeyRefresh("dbt", fetched="2026-01-02T03:04:05Z", attempts=1),)
    record = RunRecord(refresh=(DirectoryRefresh("x", keys).of(made),), environment="prod")
    (path / "@run.json").write_bytes(canonical(record))
    shutil.rmtree(path / "@staging")
    return path


@pytest.mark.slow
@given(st.data())
@_settings
def test_both_judges_agree_on_every_manifest(published: Path, data: st.DataObject) -> None:
    raw = (published / "@manifest.json").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".local_defs_state")
        shutil.copytree(published, path)
        (path / "@run.json").unlink()
        document = changed(json.loads(raw), data)
        (path / "@manifest.json").write_bytes(dumped(document))
        with suppress(KeyError, TypeError, AttributeError, UnicodeError, ValueError):
            rewrite_manifest(path, lambda it: it.update(document))  # all digests anew
        verdict = accepts(path)
        assert verdict == (not verify_at_start.problems(str(path)))
        if verdict:
            assert _described(path) == {
                file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in path.rglob("*")
                if file.is_file() and file.name != "@manifest.json"
            }


def _described(path: Path) -> dict[str, str]:
    manifest = parse((path / "@manifest.json").read_bytes())
    return {name: sha256 for name, (sha256, _) in manifest.known.files.items()}


@pytest.mark.slow
@given(st.data())
@_settings
def test_every_run_record_gets_a_verdict(published: Path, data: st.DataObject) -> None:
    raw = (published / "@run.json").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".local_defs_state")
        shutil.copytree(published, path)
        document = changed(json.loads(raw), data)
        (path / "@run.json").write_bytes(dumped(document))
        accepts(path)
        assert verify_at_start.problems(str(path)) == []


@pytest.mark.parametrize(
    "moment", ["2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z",
               "2026-01-01T24:00:01Z", "2026-01-01T00:00:00Z\n", "٢٠٢٦-01-01T00:00:00Z"]
)  # fmt: skip
def test_a_time_that_no_calendar_has_is_refused(
    moment: str, published: Path, tmp_path: Path
) -> None:
    path = tmp_path / ".local_defs_state"
    shutil.copytree(published, path)
    assert accepts(path)
    document = json.loads((path / "@run.json").read_bytes())
    document["refresh"][0]["keys"][0]["fetched"] = moment
    (path / "@run.json").write_bytes(dumped(document))
    assert not accepts(path)


def test_a_record_that_does_not_say_which_states_it_is_about_is_refused(
    published: Path, tmp_path: Path
) -> None:
    path = tmp_path / ".local_defs_state"
    shutil.copytree(published, path)
    document = json.loads((path / "@run.json").read_bytes())
    del document["refresh"][0]["contentDigest"]
    (path / "@run.json").write_bytes(dumped(document))
    assert not accepts(path)


def test_a_link_to_a_state_directory_is_refused(published: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / ".local_defs_state").symlink_to(published)
    assert not accepts(tmp_path / "app")


_INFO = {
    "bootstrap_hash": "0" * 40,
    "build_properties": {"io.state-bundler.states": "[]", "pex_version": "2.105.2"},
    "code_hash": "0" * 40,
    "deps_are_wheel_files": False,
    "distributions": {"shop-1.0-py3-none-any.whl": "0" * 64},
    "inherit_path": "false",
    "inject_env": {},
    "pex_hash": "0" * 40,
    "pex_path": "",
    "pex_paths": [],
}


@given(st.data())
@_settings
def test_every_pex_info_gets_a_verdict(data: st.DataObject) -> None:
    info = changed(changed(_INFO, data), data)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("PEX-INFO", json.dumps(info, sort_keys=True, separators=(",", ":")))
        file.writestr(".deps/shop-1.0-py3-none-any.whl/.layout.json", json.dumps(data.draw(_JSON)))
        file.writestr(".deps/shop-1.0-py3-none-any.whl/shop/.local_defs_state/x", "")
        file.writestr("__main__.py", "")
        file.writestr("__pex__/__init__.py", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "app.pex")
        path.write_bytes(target.getvalue())
        assert not accepts(path)
