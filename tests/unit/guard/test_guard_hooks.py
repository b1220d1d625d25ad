"""What git hands to a hook counts for that hook's own repository, and for nothing else.

Each case makes git itself run a hook: it asks the guard about its own repository, then goes to
another one and asks there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.git.identity import code_identity
from tests.support import asking
from tests.support.workdir import GUARD, STATE, WorkDir

pytestmark = pytest.mark.slow

FILE = f"defs/{STATE}/Orders/state"
MOMENTS = ("--staged", "", "--history", "--push")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> WorkDir:
    """A repository with committed state: every moment finds it. No test changes it."""
    wd = WorkDir.make(tmp_path_factory.mktemp("app") / "repository")
    wd.write("code.py")
    wd.write(FILE)
    wd("git add -f -A")
    wd.commit("leak", add=False)
    return wd


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> WorkDir:
    """No test changes it, either."""
    return make(tmp_path_factory.mktemp("clean") / "clean")


def make(path: Path) -> WorkDir:
    wd = WorkDir.make(path)
    wd.write("code.py")
    wd.write(".gitignore", f"{STATE}\n")
    wd.commit("code")
    return wd


def commit(deploy: WorkDir) -> None:
    deploy.write("staged.py")
    deploy("git add staged.py")
    deploy("git commit -q -m x")


def commit_all(deploy: WorkDir) -> None:
    deploy.write("code.py", "changed\n")
    deploy("git commit -q -a -m x")


def commit_a_path(deploy: WorkDir) -> None:
    deploy.write("code.py", "changed\n")
    deploy("git commit -q -m x -- code.py")


def commit_from_below(deploy: WorkDir) -> None:
    deploy.write("sub/code.py")
    deploy("git add sub")
    deploy.at("sub")("git commit -q -m x")


def commit_configured(deploy: WorkDir) -> None:
    deploy.write("code.py", "changed\n")
    deploy("git -c core.excludesFile=/dev/null -c user.name=other commit -q -a -m x")


def amend(deploy: WorkDir) -> None:
    deploy("git commit -q --amend --no-edit --allow-empty")


def push(deploy: WorkDir) -> None:
    remote = str(deploy.path.parent / "remote.git")
    deploy(["git", "init", "-q", "--bare", remote])
    deploy(["git", "push", "-q", remote, "HEAD:refs/heads/pushed"])


def checkout(deploy: WorkDir) -> None:
    deploy("git checkout -q -b another")


def add_a_work_tree(deploy: WorkDir) -> None:
    deploy("git worktree add -q ../yet-another")


def rebase(deploy: WorkDir) -> None:
    commit(deploy)
    deploy(["git", "rebase", "-q", "--exec", str(deploy.path.parent / "hooks/exec"), "HEAD~1"])


def rebase_onto(deploy: WorkDir) -> None:
    commit(deploy)
    deploy("git rebase -q --force-rebase HEAD~1")


def merge(deploy: WorkDir) -> None:
    deploy("git checkout -q -b side")
    commit(deploy)
    deploy("git checkout -q -")
    deploy.write("other.py")
    deploy("git add other.py")
    deploy("git commit -q --no-verify -m other")
    deploy("git merge -q --no-edit side")


ACTIONS: dict[str, tuple[str, Callable[[WorkDir], None]]] = {
    "commit": ("pre-commit", commit),
    "commit -a": ("pre-commit", commit_all),
    "commit -- path": ("pre-commit", commit_a_path),
    "commit from below": ("pre-commit", commit_from_below),
    "git -c commit": ("pre-commit", commit_configured),
    "amend": ("pre-commit", amend),
    "message": ("commit-msg", commit_all),
    "after a commit": ("post-commit", commit_all),
    "push": ("pre-push", push),
    "checkout": ("post-checkout", checkout),
    "worktree add": ("post-checkout", add_a_work_tree),
    "rebase --exec": ("exec", rebase),
    "pre-rebase": ("pre-rebase", rebase_onto),
    "post-rewrite": ("post-rewrite", rebase_onto),
    "merge": ("pre-merge-commit", merge),
    "after a merge": ("post-merge", merge),
}
KINDS = ("a repository", "a linked work tree", "a submodule", "a separate git directory")
# Of the hooks that a command can run, `make quick` tries those whose environments differ most.
_SLOW_ACTIONS = (
    *("commit", "commit -a", "amend", "message", "after a commit", "checkout"),
    *("pre-rebase", "post-rewrite", "after a merge", "commit -- path", "git -c commit"),
)
ALSO_SLOW_ACTIONS = [
    pytest.param(action, marks=pytest.mark.slow) if action in _SLOW_ACTIONS else action
    for action in ACTIONS
]
ALSO_SLOW = [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]


def deploy_of(kind: str, tmp_path: Path) -> WorkDir:
    """The repository whose hooks run."""
    if kind == "a separate git directory":
        wd = WorkDir.make(tmp_path / "deploy", options=[f"--separate-git-dir={tmp_path / 'x.git'}"])
        wd.write("code.py")
        wd.commit("code")
        return wd
    main = make(tmp_path / "deploy")
    if kind == "a linked work tree":
        main("git worktree add -q ../linked")
        return main.at("../linked")
    if kind == "a submodule":
        make(tmp_path / "library")
        main.submodule(WorkDir(tmp_path / "library", main.env), "lib")
        main.commit("submodule")
        main.at("lib")("git checkout -q -B main")
        return main.at("lib")
    return main


def install(deploy: WorkDir, name: str, script: str) -> None:
    hooks = deploy.path.parent / "hooks" if name == "exec" else None
    if hooks is None:
        hooks = Path(deploy("git rev-parse --path-format=absolute --git-path hooks"))
    hooks.mkdir(exist_ok=True)
    (hooks / name).write_text(f"#!/bin/sh\nset -u\n{script}\n")
    (hooks / name).chmod(0o755)


def every_moment(place: Path) -> list[asking.Question]:
    return [(f"{place.name}{moment}", place, moment) for moment in MOMENTS]


def codes(place: Path, results: Path) -> list[int]:
    return [int((results / f"{place.name}{moment}").read_text()) for moment in MOMENTS]


@pytest.mark.parametrize("kind", ALSO_SLOW)
@pytest.mark.parametrize("action", ALSO_SLOW_ACTIONS)
def test_a_hook_that_asks_elsewhere(
    app: WorkDir, clean: WorkDir, tmp_path: Path, action: str, kind: str
) -> None:
    hook, act = ACTIONS[action]
    deploy = deploy_of(kind, tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    places = (app.path, app.path / "defs", clean.path)
    by_option = ("by-option", None, f"-C {app.path} --staged")
    questions = [by_option, *(each for place in places for each in every_moment(place))]
    install(deploy, hook, asking.command(results, questions))
    act(deploy)
    assert codes(app.path, results) == [1, 1, 1, 1]
    assert codes(app.path / "defs", results) == [1, 1, 1, 1]
    assert codes(clean.path, results) == [0, 0, 0, 0]
    assert (results / "by-option").read_text() == "1\n"


@pytest.mark.parametrize("kind", ALSO_SLOW)
@pytest.mark.parametrize(
    "action", ["commit", "commit -a", "commit -- path", "commit from below", "git -c commit"]
)
def test_a_hook_that_asks_about_its_own_commit(tmp_path: Path, action: str, kind: str) -> None:
    """Also from a directory below, and by the path of one: what is committed is what is judged."""
    deploy = deploy_of(kind, tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    (deploy.path / "below").mkdir()
    questions: list[asking.Question] = [
        ("top", None, "--staged"),
        ("by-option", None, f"-C {deploy.path} --staged"),
        ("below", deploy.path / "below", "--staged"),
    ]
    install(deploy, ACTIONS[action][0], asking.command(results, questions))
    deploy.write(FILE)
    deploy(["git", "add", "-f", FILE])
    # Of "commit -- path" only what is named is committed, and the state is not.
    expected = "0" if action == "commit -- path" else "1"
    ACTIONS[action][1](deploy)
    said = {name: (results / name).read_text().strip() for name, _, _ in questions}
    assert said == dict.fromkeys(("top", "by-option", "below"), expected)


@pytest.mark.parametrize("bare", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_server_s_hook_that_asks_elsewhere(app: WorkDir, tmp_path: Path, *, bare: bool) -> None:
    """Quarantined objects count for the receiving repository, and not for the other one."""
    server = WorkDir.make(tmp_path / "server", options=["--bare"] if bare else [])
    git_dir = server.path if bare else server.path / ".git"
    results = tmp_path / "results"
    results.mkdir()
    script = [
        'updates="$(cat)"',
        f'echo "$updates" | "{GUARD}" --receive >"{results}/own.out" 2>&1',
        f'echo $? >"{results}/own"',
        asking.command(results, every_moment(app.path)),
    ]
    (git_dir / "hooks").mkdir(exist_ok=True)
    (git_dir / "hooks/pre-receive").write_text("#!/bin/sh\n" + "\n".join([*script, "exit 0"]))
    (git_dir / "hooks/pre-receive").chmod(0o755)
    client = make(tmp_path / "client")
    client(["git", "push", "-q", str(server.path), "main:one"])
    assert (results / "own").read_text() == "0\n", (results / "own.out").read_text()
    assert codes(app.path, results) == [1, 1, 1, 1]
    client.write(FILE)
    client("git add -f -A")
    client.commit("leak", add=False)
    client(["git", "push", "-q", str(server.path), "main:two"])
    assert (results / "own").read_text() == "1\n", (results / "own.out").read_text()


def test_a_work_tree_without_a_git_directory(tmp_path: Path) -> None:
    """``git --git-dir=… --work-tree=…``, as people keep their dotfiles."""
    wd = make(tmp_path / "home")
    (wd.path / ".git").rename(tmp_path / "dot.git")
    named = ["git", f"--git-dir={tmp_path / 'dot.git'}", f"--work-tree={wd.path}"]
    hooks = tmp_path / "dot.git/hooks"
    (hooks / "pre-commit").write_text(f'#!/bin/sh\nexec "{GUARD}" --staged\n')
    (hooks / "pre-commit").chmod(0o755)
    wd.write("more.py")
    wd([*named, "add", "more.py"])
    wd([*named, "commit", "-q", "-m", "x"])
    wd.write(FILE)
    wd([*named, "add", "-f", FILE])
    refused = wd.run([*named, "commit", "-q", "-m", "x"])
    assert refused.returncode == 1
    assert FILE.encode() in refused.stderr
    # A repository of its own inside: its files say so.
    inner = make(wd.path / "inner")
    place = {"GIT_DIR": str(tmp_path / "dot.git"), "GIT_WORK_TREE": str(wd.path)}
    assert wd.guard("--staged", env=place).code == 1
    assert inner.guard("--staged", env=place).code == 0
    # And one outside: the work tree does not hold it.
    assert make(tmp_path / "other").guard("--staged", env=place).code == 0


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": "{deploy}/.git"},
        {"GIT_DIR": "{deploy}/.git", "GIT_INDEX_FILE": "{deploy}/.git/index"},
        {"GIT_INDEX_FILE": "{deploy}/.git/index"},
        {"GIT_INDEX_FILE": ".git/next-index-1.lock"},
        {"GIT_DIR": "{deploy}/.git", "GIT_COMMON_DIR": "{deploy}/.git"},
        {"GIT_DIR": "{deploy}/.git", "GIT_OBJECT_DIRECTORY": "{deploy}/.git/objects"},
        {"GIT_DIR": "/nowhere"},
        {"GIT_DIR": ""},
        {"GIT_DIR": "{deploy}/.git", "GIT_WORK_TREE": "{deploy}"},
        {"GIT_DIR": "{deploy}/.git", "GIT_SHALLOW_FILE": "/dev/null"},
    ],
)
def test_variables_of_another_repository(
    app: WorkDir, tmp_path: Path, variables: dict[str, str]
) -> None:
    deploy = make(tmp_path / "deploy")
    env = {name: value.format(deploy=deploy.path) for name, value in variables.items()}
    for moment in MOMENTS:
        said = app.guard(*moment.split(), env=env)
        assert said.code == 1, (moment, said)


def test_only_hooks_questions_take_it(tmp_path: Path) -> None:
    """Before a build the repository's own index is judged, whatever is being committed."""
    deploy = make(tmp_path / "deploy")
    deploy.write(FILE)
    another = str(tmp_path / "another")
    deploy(["git", "add", "-f", FILE], env={"GIT_INDEX_FILE": another})
    assert deploy.guard("--staged", env={"GIT_INDEX_FILE": another}).code == 1
    assert deploy.guard(env={"GIT_INDEX_FILE": another}).code == 0


def test_the_record_names_the_project_s_own_commit(
    app: WorkDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy = make(tmp_path / "deploy")
    for name, value in {**app.env, "GIT_DIR": f"{deploy.path}/.git"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(deploy.path)
    code = code_identity(app.path)
    assert code is not None
    assert code.commit == app("git rev-parse HEAD") != deploy("git rev-parse HEAD")
