"""Each command that a message asks the user to run, and the test that pastes it.

A row is a module and function of the package, the command as its text has it ({} stands for a
value), and the test. What no test can run here has the reason instead.
"""

from __future__ import annotations

_HERE = "tests/unit/cli/test_printed_commands.py"
_MORE = "tests/unit/cli/test_pasted_commands.py"
_TOOLS = "tests/unit/cli/test_pasted_tools.py"
_GUARD = "tests/unit/guard/test_guard_printed_fixes.py"
_REPOSITORIES = "tests/unit/guard/test_guard_repositories.py"
_IGNORED = "tests/unit/guard/test_guard_ignored.py"
_CURES = (
    "tests/dagster/test_doctor_traps.py::test_a_fix_that_is_printed_cures_what_it_was_printed_for"
)
_HOSTILE = "tests/unit/state/test_hostile_state_directories.py"
_JOURNAL = f"{_HOSTILE}::test_the_fix_for_a_damaged_journal_works_where_it_is_pasted"
_DOCKER = "tests/engine/test_printed_docker_commands.py"
_DG = "tests/dagster/test_printed_dg_commands.py"
_REACH = "tests/dagster/test_doctor.py::test_reach_asks_each_system_with_the_same_load"
_WORKFLOW = "tests/engine/test_first_contact.py::test_every_step_of_the_workflow_runs"
_STORE = "tests/unit/store/test_cli_store.py"
_LOST = f"{_STORE}::test_what_a_bucket_lost_is_pushed_again_as_the_message_says"
_RULES = f"{_GUARD}::test_an_unprotected_directory"
_PIP = f"{_TOOLS}::test_an_environment_that_pip_fills"
_NO_CONTEXT = f"{_DOCKER}::test_a_context_that_is_missing"
# Another tool than uv and pip manages the environment.
_OTHER_TOOL = "not here: its tool would have to be installed for each run"

TRIED: tuple[tuple[str, str, str], ...] = (
    (
        "artifacts/image/engine/arguments.py parse",
        "state-bundler build docker -t NAME",
        _NO_CONTEXT,
    ),
    (
        "artifacts/baseline.py _how_to_pass_one",
        "state-bundler extract {} -o states",
        "not here: an artifact that is not a directory would have to be built",
    ),
    (
        "artifacts/image/archive.py _read",
        "docker save -o FILE IMAGE",
        f"{_DOCKER}::test_an_archive_of_a_container",
    ),
    (
        "artifacts/names.py ",
        "skopeo copy containers-storage:NAME oci:DIR:TAG",
        "not here: needs an image in podman's storage",
    ),
    (
        "artifacts/image/engine/connection.py ",
        "docker version",
        f"{_DOCKER}::test_an_engine_that_does_not_respond",
    ),
    (
        "artifacts/image/engine/opening.py open_image",
        "docker pull {}",
        f"{_DOCKER}::test_an_image_that_the_engine_does_not_have",
    ),
    (
        "artifacts/image/engine/outputs.py check",
        "state-bundler embed NAME@DIGEST --tag NAME",
        "tests/registry/test_ci_components.py::test_the_action_embeds_updates_and_verifies",
    ),
    (
        "artifacts/image/engine/stdin_context.py take",
        "state-bundler build docker -f -",
        _NO_CONTEXT,
    ),
    (
        "artifacts/image/registry/credentials.py _from_entry",
        "docker login {}",
        f"{_DOCKER}::test_an_entry_that_cannot_be_read",
    ),
    (
        "artifacts/image/registry/store.py resolve",
        "skopeo list-tags docker://",
        "tests/registry/test_printed_skopeo.py::test_an_image_that_the_registry_does_not_have",
    ),
    (
        "artifacts/image/registry/tokens.py refused",
        "docker login {}, or set DOCKER_AUTH_CONFIG or REGISTRY_AUTH_FILE",
        f"{_DOCKER}::test_a_registry_that_wants_a_login",
    ),
    *(
        (place, "pex3 scie create", f"{_TOOLS}::test_the_scie_of_a_finished_pex")
        for place in (
            "artifacts/python/pex/arguments.py ",
            "artifacts/python/pex/file.py _refuse_scie",
        )
    ),
    (
        "cli/init.py _install_docker_plugin",
        "docker bundle build --help",
        f"{_DOCKER}::test_what_the_plugin_is_tried_with",
    ),
    (
        "component.py _refuse_missing",
        "state-bundler refresh",
        f"{_MORE}::test_a_load_without_its_state",
    ),
    (
        "git/questions.py require_whole_index",
        "rm {} && git reset",
        f"{_GUARD}::test_a_damaged_index",
    ),
    (
        "git/repository.py ",
        "git fetch --refetch --no-filter",
        f"{_IGNORED}::test_a_partial_clone_of_a_part",
    ),
    (
        "git/repository.py _cannot_answer",
        "git config --global --add safe.directory {}",
        f"{_REPOSITORIES}::test_another_owner",
    ),
    (
        "git/repository.py _cannot_answer",
        "git config --global safe.bareRepository all",
        f"{_REPOSITORIES}::test_bare",
    ),
    (
        "git/repository.py _cannot_answer",
        "git submodule update --init -- {}",
        f"{_IGNORED}::test_a_sparse_checkout_and_a_submodule_without_git",
    ),
    ("git/words.py quoted", "printf '{}')\"", f"{_GUARD}::test_state_in_the_index"),
    (
        "guard/commits.py ",
        "git update-ref -d REF",
        f"{_MORE}::test_a_tag_of_a_tree_with_state",
    ),
    (
        "guard/commits.py _border",
        "git fetch --unshallow",
        f"{_REPOSITORIES}::test_shallow_that_shows_a_leak",
    ),
    (
        "guard/commits.py check_history",
        "git fetch --unshallow (actions/checkout: fetch-depth: 0) and try again",
        f"{_REPOSITORIES}::test_shallow",
    ),
    (
        "guard/git_hooks.py install",
        "git config --show-origin core.hooksPath",
        "tests/unit/guard/test_githooks.py::test_hooks_that_are_switched_off",
    ),
    ("guard/fixes.py append_command", "printf '{}%s\\n' {} >> {}", _RULES),
    ("guard/fixes.py git_command", "git -C {}", f"{_GUARD}::test_from_where_the_user_is"),
    ("guard/fixes.py _rewritten", "mv {} {}", _RULES),
    ("guard/fixes.py _examined", "chmod u+w {}", _RULES),
    ("guard/fixes.py _examined", "mv {} {}.moved", _RULES),
    ("guard/fixes.py _examined", "rm {}", _RULES),
    ("project/environment_tools.py ", "pip install {}", f"{_TOOLS}::test_a_package_that_pip_adds"),
    ("project/environment_tools.py ", "pip install -r requirements.txt", _PIP),
    ("project/environment_tools.py how_to_install", "pip install -e", _PIP),
    (
        "project/environment_tools.py ",
        "uv add {}",
        f"{_HERE}::test_a_dependency_that_is_missing",
    ),
    *(
        ("project/environment_tools.py ", text, f"{_MORE}::test_an_environment_without_the_project")
        for text in ("uv sync", "uv run")
    ),
    *(
        ("project/environment_tools.py ", text, _OTHER_TOOL)
        for text in (
            *("poetry install", "poetry add {}", "poetry run"),
            *("pixi install", "pixi add --pypi {}", "pixi run"),
            *("pdm install", "pdm add {}", "pdm run"),
            *("pipenv install", "pipenv install {}", "pipenv run"),
            *("pants export --resolve=python-default", "conda env create -f environment.yml"),
        )
    ),
    (
        "project/no_project.py _example",
        "state-bundler init",
        f"{_MORE}::test_a_directory_without_a_project",
    ),
    (
        "project/no_project.py way_out",
        "state-bundler init",
        f"{_TOOLS}::test_a_manifest_of_dbt_that_a_program_loads",
    ),
    (
        "refresh/directories.py _keep",
        "state-bundler refresh --key {}",
        f"{_HERE}::test_states_that_are_not_there_yet",
    ),
    (
        "refresh/discovery.py _load",
        "dg list components",
        f"{_DG}::test_a_project_that_takes_long_to_load",
    ),
    (
        "refresh/outcome/classify.py _unseen",
        "git status",
        "not here: needs a git that hangs in a component's child process",
    ),
    (
        "refresh/sources.py load_error",
        "dg check defs",
        f"{_DG}::test_components_that_cannot_be_loaded",
    ),
    (
        "setup/demo/project.py prepare_folder",
        "state-bundler demo FOLDER",
        f"{_TOOLS}::test_a_folder_for_the_demonstration",
    ),
    ("setup/doctor/commits.py _install", "state-bundler init --git-hooks", _CURES),
    ("setup/doctor/commits.py _hooks", "state-bundler doctor --fix", _CURES),
    ("setup/doctor/commits.py _hooks", "state-bundler init --git-hooks", _CURES),
    (
        "setup/doctor/components.py _left_over",
        "state-bundler refresh: it removes published keys that no component has",
        f"{_MORE}::test_a_key_without_a_component",
    ),
    *(
        (
            "setup/doctor/components.py _in_development",
            text,
            f"{_DG}::test_components_that_are_fetched_in_development",
        )
        for text in ("dg list defs", "dg check defs")
    ),
    (
        "setup/doctor/credentials.py _unset",
        "state-bundler doctor --reach shows whether its system accepts that",
        _REACH,
    ),
    (
        "setup/doctor/docker.py _secrets_in_context",
        "git status",
        "not here: needs a git that fails in the build context alone",
    ),
    (
        "setup/doctor/docker.py engine",
        "docker version for details",
        f"{_DOCKER}::test_an_engine_that_does_not_respond_to_doctor",
    ),
    ("setup/doctor/packaging.py _left_over", "rm -rf {}", _CURES),
    ("setup/doctor/reach.py reach", "state-bundler doctor --reach", _REACH),
    (
        "setup/doctor/state.py _judge",
        "state-bundler refresh",
        f"{_MORE}::test_an_altered_state_in_doctor",
    ),
    (
        "setup/init/pyproject.py add_table",
        "state-bundler init --without table",
        f"{_HERE}::test_a_pyproject_that_cannot_be_changed",
    ),
    (
        "setup/init/pyproject.py add_backend_list",
        "state-bundler init --without backend",
        f"{_HERE}::test_a_pyproject_that_cannot_be_changed",
    ),
    (
        "setup/init/pre_commit_config.py ",
        "state-bundler init --without pre-commit",
        f"{_MORE}::test_a_pre_commit_configuration_that_is_not_understood",
    ),
    (
        "setup/init/pre_commit_config.py load",
        "pre-commit migrate-config",
        f"{_MORE}::test_a_pre_commit_configuration_of_old",
    ),
    (
        "setup/init/precommit.py ",
        "pre-commit install -t pre-commit -t pre-merge-commit",
        _CURES,
    ),
    *(
        (f"setup/init/workflow.py {function}", text, _WORKFLOW)
        for function, text in (
            ("", 'uv tool install --quiet {words} && uv tool dir --bin >> "$GITHUB_PATH"'),
            ("_image", "docker build --quiet --tag {} {}"),
            ("_installed", "uv venv {}/.venv && uv pip install --python {}/.venv {}"),
            ("_artifact", "state-bundler build wheel --project {} -o dist"),
            ("_prepare", "uv sync --directory {}"),
        )
    ),
    ("setup/init/workflow.py _artifact", "pants package {}", _OTHER_TOOL),
    ("setup/init/workflow.py _made_by_its_tool", "pixi install --manifest-path {}", _OTHER_TOOL),
    ("setup/init/workflow.py _tools", "pixi install", _OTHER_TOOL),
    ("setup/init/pyproject.py ", "state-bundler init", "not here: a comment in the file"),
    ("state/publishing.py _not_ours", "rm -r {}, then refresh again", _JOURNAL),
    ("state/publishing.py _is_installed", "rm -r {}, then refresh again", _JOURNAL),
    ("state/publishing.py _decoded", "rm -r {}, then refresh again", _JOURNAL),
    (
        "state/statedir.py _forget",
        "git -C {} rm -r -f --cached -- {}",
        f"{_HOSTILE}::test_the_fix_for_a_journal_in_git_works_where_it_is_pasted",
    ),
    (
        "state/statedir.py refuse_interrupted",
        "state-bundler refresh",
        f"{_MORE}::test_a_publish_that_was_interrupted",
    ),
    ("store/content.py ", "state-bundler store remove KEY", _LOST),
    ("store/local.py published", "state-bundler refresh", f"{_HERE}::test_a_store_that_is_empty"),
    (
        "store/shards.py join",
        "state-bundler refresh --shard {} --run {} --store {}",
        f"{_HERE}::test_shards",
    ),
    (
        "store/store.py command",
        "state-bundler store {} --store {}",
        f"{_HERE}::test_what_a_store_does_not_have",
    ),
    (
        "workflows/embed.py _image",
        "state-bundler update {}",
        f"{_MORE}::test_a_pex_that_is_embedded_into",
    ),
    (
        "workflows/embed.py _named",
        "docker pull {}",
        f"{_DOCKER}::test_an_engine_s_tag_for_an_image_of_a_registry",
    ),
    (
        "workflows/plan.py _refuse_error",
        "dg check defs",
        f"{_DG}::test_components_that_cannot_be_loaded",
    ),
    (
        "workflows/plan_file.py _read",
        "state-bundler plan --out plan.bin",
        f"{_MORE}::test_a_file_that_is_not_a_plan",
    ),
    (
        "cli/plan.py _not_refreshed",
        "state-bundler refresh --push",
        f"{_MORE}::test_a_store_without_a_version",
    ),
    (
        "workflows/plan_file.py _refuse_other_format",
        "state-bundler plan --out plan.bin",
        f"{_MORE}::test_a_file_that_is_not_a_plan",
    ),
    (
        "workflows/plan_file.py _refuse_other",
        "state-bundler plan {} --out plan.bin",
        "not here: no test pastes it yet",
    ),
    (
        "workflows/plan_file.py _refuse_moved",
        "state-bundler plan --out plan.bin",
        f"{_MORE}::test_a_plan_that_is_stale",
    ),
    (
        "workflows/signature.py _sign_it",
        "state-bundler sign {} --ssh-key KEY{}",
        f"{_MORE}::test_a_signature_that_is_missing",
    ),
    (
        "workflows/signature.py sign",
        "ssh-keygen -t ed25519 -f KEY",
        f"{_HERE}::test_keys_and_signatures",
    ),
    (
        "workflows/status.py _compared",
        "state-bundler verify {}",
        f"{_HERE}::test_states_that_were_altered",
    ),
    (
        "workflows/stored_versions.py state",
        "state-bundler refresh --push",
        f"{_MORE}::test_a_store_without_a_version",
    ),
    (
        "workflows/wheel_hook.py _check",
        "state-bundler refresh",
        f"{_MORE}::test_a_wheel_of_an_altered_state",
    ),
)
# A label, the words of a message, or a comment in a file that is written: each by its start.
NO_COMMAND = (
    *("docker build", "docker buildx bake", "docker bundle", "docker compose -f", "docker history"),
    "docker export",
    *("docker push {}", "docker {}, {}", "git add", "git cannot list"),
    *("state-bundler build {}", "state-bundler embed {}", "state-bundler init --docker-plugin"),
    *("state-bundler init: ", "state-bundler is not installed", "state-bundler leaves"),
    *(
        "state-bundler {}",
        "state-bundler verify: {}",
        "state-guard --push --remote",
        "state-guard --st",
    ),
    *("state-guard directly", "uv build, pip wheel"),
)
