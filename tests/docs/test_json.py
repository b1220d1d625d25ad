"""The examples of JSON output have the members that the program prints."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bundler.cli.documents.schemas import DOCS, DOCUMENTS, FOLDER, schema_of
from bundler.project.schema import in_order, render
from bundler.version import SCHEMA_VERSION
from tests.support import forked
from tests.support.environments import ROOT
from tests.support.workdir import WorkDir

_PAGE = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
_EXAMPLES = dict(
    re.findall(r'```json title="state-bundler (\w+) --format json"\n(.*?)```', _PAGE, re.DOTALL)
)
_PROJECT = """\
[[tool.state-bundler.source]]
key = "Catalogue"
command = ["cp", "catalogue.json", "{state_path}"]
path = "src/shop/state"
"""
_ARGUMENTS = {
    "diff": ("oci:build/image", "oci:build/image"),
    "doctor": (),
    "embed": ("oci:build/image", "--tag", "oci:build/out:latest"),
    "guard": (),
    "status": ("oci:build/image",),
    "verify": ("oci:build/image",),
}
# What has members by name, not by meaning.
_MAPS = ("contentDigests",)


def run(folder: Path, *arguments: str) -> str:
    return forked.said("state-bundler", *arguments, cwd=folder).stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wd = WorkDir.make(tmp_path_factory.mktemp("json") / "project")
    wd.write("pyproject.toml", _PROJECT)
    wd.write("catalogue.json", "[1, 2, 3]")
    wd.write("src/shop/__init__.py", "")
    wd.write(".gitignore", "/build/\n/src/shop/state/\n")
    wd("git add .")
    wd.commit("project")
    run(wd.path, "build", "oci", "-o", "build/image")
    return wd.path


def members(value: Any) -> Any:
    """Its form: the names of members, of the first item of a list."""
    if isinstance(value, dict):
        return {name: None if name in _MAPS else members(one) for name, one in value.items()}
    if isinstance(value, list):
        return [members(item) for item in value[:1]]
    return None


@pytest.mark.parametrize("command", sorted(_ARGUMENTS))
def test_an_example_has_the_members_that_are_printed(command: str, project: Path) -> None:
    printed = json.loads(run(project, command, *_ARGUMENTS[command], "--format", "json"))
    assert members(printed) == members(json.loads(_EXAMPLES[command]))


def test_every_example_is_run() -> None:
    assert set(_EXAMPLES) == set(_ARGUMENTS)


# A schema's name -> a command line that prints such a document. STORE and NEW are URLs.
_PRINTED = {
    "build": "build oci -o build/again",
    "diff": "diff oci:build/image oci:build/image",
    "doctor": "doctor",
    "embed": "embed oci:build/image --tag oci:build/out:latest",
    "extract": "extract oci:build/image -o ../extracted",
    "guard": "guard",
    "init": "init --yes --project ../other",
    "plan": "plan oci:build/image",
    "refresh": "refresh",
    "refresh-dry-run": "refresh --dry-run",
    "shard": "store push --store NEW --shard 1/2 --run r",
    "sign": "sign build/states.tar --ssh-key key",
    "status": "status oci:build/image --baseline oci:build/image",
    "store-copy": "store copy COPY --store STORE",
    "store-import": "store import DAGSTER --store NEW --key Catalogue",
    "store-list": "store list --all-versions --store STORE",
    "store-pins": "store pin VERSION --note kept --store STORE",
    "store-prune": "store prune --dry-run --store STORE",
    "store-push": "store push --store STORE",
    "store-set": "store rollback --at 1 --store STORE",
    "store-sets": "store list --sets --store STORE",
    "store-show": "store show Catalogue --store STORE",
    "store-verify": "store verify --store STORE",
    "updates": "update oci:build/image oci:build/none",
    "verify": "verify oci:build/image --require Orders",
}
# Documents of the same form, printed by another command.
_ALSO = (
    ("diff", "store diff 1 --store STORE"),
    ("refresh", "refresh --push --store STORE"),
    ("refresh", "refresh -o build/states.tar"),
    ("extract", "store pull -o ../pulled --store STORE"),
    ("store-set", "store remove Catalogue --store STORE"),
    ("init", "init --remove --project ../other"),
    ("init", "init --git-hooks --project ../other"),
    ("init", "init --git-hooks --remove --project ../other"),
    ("store-pins", "store pin VERSION --remove --store STORE"),
    ("store-list", "store list --store file:///tmp/state-bundler-has-nothing-here"),
)


@pytest.fixture(scope="module")
def prepared(project: Path) -> Path:
    """The project with a store, a set to go back to, and a key to sign with."""
    ssh_keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"]
    subprocess.run(ssh_keygen, cwd=project, check=True)
    imported = project / "build/dagster/Catalogue/11111111-1111-4111-8111-111111111111"
    imported.parent.mkdir(parents=True)
    imported.write_text("[1]")
    run(project, "refresh", "-o", "build/states.tar")
    run(project, *_words("store push --store STORE", project))
    listed = run(project, *_words("store list --store STORE --format json", project))
    (project / "build/version").write_text(json.loads(listed)["keys"][0]["version"])
    other = WorkDir.make(project.parent / "other")
    other.write("pyproject.toml", _PROJECT)
    return project


def _words(line: str, project: Path) -> list[str]:
    urls = {
        word: f"file://{project / 'build' / word.lower()}"
        for word in ("STORE", "NEW", "COPY", "DAGSTER")
    }
    version = project / "build/version"
    urls["VERSION"] = version.read_text() if version.exists() else ""
    return [urls.get(word, word) for word in line.split()]


@pytest.mark.parametrize(("name", "line"), [*_PRINTED.items(), *_ALSO])
def test_what_is_printed_matches_its_schema(name: str, line: str, prepared: Path) -> None:
    from jsonschema import Draft202012Validator

    printed = run(prepared, *_words(line, prepared), "--format", "json")
    assert printed, line
    Draft202012Validator(schema_of(name)).validate(json.loads(printed))


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_schemas_are_what_the_models_say(name: str) -> None:
    expected = render(in_order(schema_of(name)))
    for folder in (FOLDER, ROOT / DOCS):
        assert (folder / f"{name}.schema.json").read_text() == expected, "run: make docs"
    assert f"schemas/{name}.schema.json" in _PAGE


def test_every_document_is_printed_and_has_the_one_version() -> None:
    assert {*_PRINTED, "build-report"} == set(DOCUMENTS)
    for folder in (FOLDER, ROOT / DOCS):
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.schema.json" for name in DOCUMENTS
        }
    for name in DOCUMENTS:
        assert schema_of(name)["$defs"], name
        assert str(SCHEMA_VERSION) in json.dumps(schema_of(name))


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_names_of_members_are_in_camel_case(name: str) -> None:
    names = re.findall(r'"(\w+)": {', render(schema_of(name)))
    assert [each for each in names if "_" in each[1:]] == []
