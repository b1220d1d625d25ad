"""How a repository builds its images: in compose files, Dagster's build files, CI and scripts.

What is declared is taken as it is; a Dockerfile that nothing names is built in the nearest folder
that has what it copies. An image is a project's if its Dockerfile copies the project's code.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.artifacts.image.engine.arguments import read
from bundler.artifacts.image.engine.dockerbuild import usual_dockerfile
from bundler.artifacts.image.engine.dockerfile import copied_paths, open_arguments
from bundler.artifacts.image.engine.ignore import ignore_file_of
from bundler.errors import UsageError
from bundler.git import ignored_below
from bundler.project.classic_dbt import files
from bundler.project.config import table
from bundler.project.layout import import_roots
from bundler.project.survey import Survey
from bundler.system.reading import scanned
from bundler.system.secret_names import has_a_secret_name
from bundler.system.url_credentials import has_credentials

# Our own file, which is no source of declarations.
WORKFLOW = "state-bundler.yml"
_COMPOSE = re.compile(r"(docker-)?compose([.-][\w.-]+)?\.ya?ml$")
_DAGSTER = re.compile(r"(dagster_cloud[\w.-]*|build)\.ya?ml$")
_DOCKERFILE = re.compile(r"(?i)(.+\.)?(docker|container)file([._-].+)?$")
_COMMAND = re.compile(r"\bdocker\s+(?:buildx\s+)?build\s+(?P<words>[^\n&|;#]+)")
_SCRIPTS = re.compile(r"(Makefile|makefile|justfile|Justfile|.*\.sh|.*\.mk)$")
_LOGIN = ("docker/login-action", "aws-actions/", "google-github-actions/auth", "azure/")
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_ANY_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# Names that a matrix may contain and a shell may expand: no secret, and nothing that an outsider
# chooses.
_FIXED = re.compile(r"\$\{\{\s*(github\.(?!event\b|token\b|head_ref\b)|vars\.)\w+\s*\}\}")
_UNKNOWN = re.compile(r"\$(?!\{\{)")
# In a step that logs in: contexts that another job does not have, and what requires a permission.
_ELSEWHERE = re.compile(r"\b(env|inputs|jobs?|matrix|needs|runner|steps|strategy)\s*[.\[]")
_OIDC = re.compile(r"(?i)'(role-to-assume|workload_identity_provider|client-id)'")


@dataclass(frozen=True)
class DeclaredBuild:
    """One image. context, dockerfile: relative to the repository, POSIX; the context may be ``.``.

    image: its name without a tag, where that is declared. about: words that its declaration has for
    it, such as the service's name and command. login: steps of a workflow that log in. withheld:
    arguments that are left out because their name says that they are secret, or because their value
    is not known.
    """

    context: str
    dockerfile: str
    declared: str = ""
    target: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    image: str = ""
    about: str = ""
    login: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    withheld: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The arguments of ``docker build`` in the repository's folder."""
        usual = "Dockerfile" if self.context == "." else f"{self.context}/Dockerfile"
        words = [] if self.dockerfile == usual else ["--file", self.dockerfile]
        words += ["--target", self.target] if self.target else []
        for name, value in self.arguments:
            words += ["--build-arg", f"{name}={value}"]
        return [*words, self.context]


def build_of(survey: Survey, builds: Sequence[DeclaredBuild]) -> DeclaredBuild | None:
    """The build whose image has a project's code: the most precise match.

    The project's own Dockerfile counts even if it does not copy the code by name.
    """
    found = []
    for build in builds:
        for tried in _filled(build, survey):
            depth = _copies(tried, survey)
            is_own = (survey.outer / tried.dockerfile).parent == survey.root
            if depth or (is_own and tried.dockerfile.lower().endswith("dockerfile")):
                found.append(
                    ((depth > 0, _names(survey, build), bool(build.declared), depth, is_own), tried)
                )
    return max(found, key=lambda each: each[0])[1] if found else None


@dataclass(frozen=True)
class ImageSource:
    """What the image of a project is built from. context: the folder. dockerfile: None if there is
    none yet.
    """

    context: Path
    dockerfile: Path | None

    @property
    def ignore_file(self) -> Path:
        """Where the build reads its ignore rules; it may be missing."""
        return ignore_file_of(self.context, self.dockerfile)

    def inside(self, paths: Iterable[Path]) -> list[PurePosixPath]:
        """Of absolute paths those in the context, relative to it."""
        return [
            PurePosixPath(path.relative_to(self.context).as_posix())
            for path in paths
            if path.is_relative_to(self.context)
        ]


def image_source(survey: Survey) -> ImageSource:
    """By the build that is declared for the project; else its own folder with its Dockerfile."""
    build = build_of(survey, builds_in(survey.outer))
    if build is not None:
        return ImageSource(survey.outer / build.context, survey.outer / build.dockerfile)
    own = next((survey.root / path for path in survey.dockerfiles), None)
    return ImageSource(survey.root, own)


def builds_in(repository: Path) -> list[DeclaredBuild]:
    """Every build that a repository declares, and every Dockerfile, in a stable order.

    Ignored files declare nothing: no other clone has them.
    """
    ignored = {repository / path for path in ignored_below(repository)}
    found: list[DeclaredBuild] = []
    dockerfiles: list[Path] = []
    for path in [*files(repository), *sorted(repository.glob(".gitlab-ci.y*ml"))]:
        name = path.name
        if not ignored.isdisjoint((path, *path.parents)):
            continue
        if _COMPOSE.match(name):
            found += _of_compose(repository, path)
        elif _DAGSTER.match(name):
            found += _of_dagster(repository, path)
        elif _SCRIPTS.match(name) or name.startswith(".gitlab-ci"):
            found += _of_script(repository, path, scanned(path))
        elif _DOCKERFILE.match(name) and not name.endswith(".dockerignore"):
            dockerfiles.append(path)
    for path in sorted(repository.glob(".github/workflows/*.y*ml")):
        if path.name != WORKFLOW and ignored.isdisjoint((path, *path.parents)):
            found += _of_workflow(repository, path)
    there = [build for build in found if (repository / build.dockerfile).is_file()]
    there += [build for path in dockerfiles for build in _undeclared(repository, path)]
    return list(dict.fromkeys(there))


# --- declarations ---------------------------------------------------------------------------


def _of_compose(repository: Path, path: Path) -> Iterator[DeclaredBuild]:
    for name, service in table(_yaml(path), "services").items():
        build = service.get("build") if isinstance(service, Mapping) else None
        if isinstance(build, str):
            build = {"context": build}
        if not isinstance(build, Mapping) or "://" in str(build.get("context", ".")):
            continue
        yield from _declared(
            repository,
            path,
            context=path.parent / str(build.get("context", ".")),
            dockerfile=build.get("dockerfile"),
            target=str(build.get("target") or ""),
            arguments=arguments_of(build.get("args")),
            image=_without_tag(str(service.get("image") or "")),
            about=f"{name} {service.get('command', '')} {service.get('environment', '')}",
        )


def _of_dagster(repository: Path, path: Path) -> Iterator[DeclaredBuild]:
    """Dagster's ``dagster_cloud.yaml``, and the newer ``build.yaml`` of a project."""
    data = _yaml(path)
    locations = data.get("locations", [data] if "registry" in data else [])
    for location in locations if isinstance(locations, list) else []:
        if not isinstance(location, Mapping):
            continue
        build = location.get("build", location if "registry" in location else None)
        if isinstance(build, Mapping):
            yield from _declared(
                repository,
                path,
                context=path.parent / str(build.get("directory") or "."),
                image=_without_tag(str(build.get("registry") or "")),
                about=f"{location.get('location_name', '')} {location.get('code_source', '')}",
            )


def _of_workflow(repository: Path, path: Path) -> Iterator[DeclaredBuild]:
    data = _yaml(path)
    for job in table(data, "jobs").values():
        if not isinstance(job, Mapping) or not isinstance(job.get("steps"), list):
            continue
        variables = _flat({**table(data, "env"), **table(job, "env")}, "env")
        steps = [step for step in job["steps"] if isinstance(step, Mapping)]
        login = tuple(step for step in steps if str(step.get("uses", "")).startswith(_LOGIN))
        for values in _matrix(table(job, "strategy", "matrix")):
            known = {**variables, **values}
            given_login = _copied([_expanded(step, known) for step in login])
            for step in steps:
                for build in _of_step(repository, path, _expanded(step, known)):
                    yield replace(build, login=given_login)


def _copied(login: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The steps, if another job without more permissions can run them; else none."""
    for step in login:
        used = [*_ANY_EXPRESSION.findall(str(step)), str(step.get("if", ""))]
        if _OIDC.search(str(step)) or any(map(_ELSEWHERE.search, used)):
            return ()
    return tuple(login)


def _of_step(repository: Path, path: Path, step: Mapping[str, Any]) -> Iterator[DeclaredBuild]:
    if str(step.get("uses", "")).startswith("docker/build-push-action"):
        given = table(step, "with")
        context = str(given.get("context") or ".")
        tags = [line for line in re.split(r"[\n,]", str(given.get("tags") or "")) if line.strip()]
        if "://" not in context and "${{" not in context:
            yield from _declared(
                repository,
                path,
                context=repository / context,
                dockerfile=given.get("file") and repository / str(given["file"]),
                target=str(given.get("target") or ""),
                arguments=arguments_of(str(given.get("build-args") or "").split("\n")),
                image=_without_tag(tags[0].strip()) if tags else "",
            )
    folder = repository / str(step.get("working-directory") or ".")
    yield from _of_script(repository, path, str(step.get("run") or ""), folder)


def _of_script(
    repository: Path, path: Path, text: str, folder: Path | None = None
) -> Iterator[DeclaredBuild]:
    """The calls of ``docker build`` in a script that runs in the repository, or in a folder."""
    here = folder or (path.parent if path.name.endswith(".sh") else repository)
    text = _ANY_EXPRESSION.sub(_as_one_word, text.replace("\\\n", " "))
    for command in _COMMAND.finditer(text):
        try:
            found = read(shlex.split(command["words"]))
        except (ValueError, UsageError):
            continue
        context = found.positional[-1] if found.positional else "."
        if "://" in context or _UNKNOWN.search(context):
            continue
        file = found.last("--file")
        yield from _declared(
            repository,
            path,
            context=here / context,
            dockerfile=here / file if file and not _UNKNOWN.search(file) else None,
            target=found.last("--target") or "",
            arguments=arguments_of([*found.all("--build-arg")]),
            image=_without_tag(found.last("--tag") or ""),
        )


def _as_one_word(expression: re.Match[str]) -> str:
    inner = expression[1] if re.fullmatch(r"[\w.-]+", expression[1]) else "unknown"
    return f"${{{{{inner}}}}}"


def _declared(
    repository: Path,
    path: Path,
    *,
    context: Path,
    dockerfile: Any = None,
    target: str = "",
    arguments: Sequence[tuple[str, str]] = (),
    **rest: Any,
) -> Iterator[DeclaredBuild]:
    """With paths relative to the repository; nothing if a path is outside."""
    kept = tuple(pair for pair in arguments if _is_public(*pair))
    withheld = tuple(name for name, _ in arguments if name not in dict(kept))
    rest |= {"target": target if _is_known(target) else "", "arguments": kept, "withheld": withheld}
    context = Path(os.path.normpath(context))
    named = context / str(dockerfile) if dockerfile else usual_dockerfile(context)
    file = Path(os.path.normpath(named))
    if context.is_relative_to(repository) and file.is_relative_to(repository):
        where, what, by = (
            each.relative_to(repository).as_posix() for each in (context, file, path)
        )
        yield DeclaredBuild(where, what, by, **rest)


def _undeclared(repository: Path, path: Path) -> Iterator[DeclaredBuild]:
    """In the nearest folder that contains what the Dockerfile copies."""
    text = scanned(path)
    for folder in [path.parent, *path.parent.parents]:
        copied = list(copied_paths(text, {}))
        if all("*" in name or (folder / name).exists() for name in copied):
            where, what = (each.relative_to(repository).as_posix() for each in (folder, path))
            yield DeclaredBuild(where, what)
        if folder == repository:
            return


# --- which project's it is ------------------------------------------------------------------


def _filled(build: DeclaredBuild, survey: Survey) -> Iterator[DeclaredBuild]:
    """With a value for a build argument that has none: the project by one of its names."""
    text = scanned(survey.outer / build.dockerfile)
    given = dict(build.arguments)
    missing = [name for name in dict.fromkeys(open_arguments(text)) if name not in given]
    used = [name for name in missing if re.search(rf"(COPY|ADD).*\$\{{?{name}\b", text)]
    context = survey.outer / build.context
    inside = survey.root.is_relative_to(context)
    values = [survey.root.relative_to(context).as_posix()] if inside else []
    values += [survey.root.name, *([survey.dagster.root] if survey.dagster else [])]
    for chosen in itertools.product(dict.fromkeys(values), repeat=len(used[:2])):
        more = tuple(zip(used, chosen, strict=False))
        yield replace(build, arguments=(*build.arguments, *more))


def _copies(build: DeclaredBuild, survey: Survey) -> int:
    """How precisely the Dockerfile copies the project's code; 0 if it does not."""
    context = survey.outer / build.context
    text = scanned(survey.outer / build.dockerfile)
    code = _code(survey)
    depth = 0
    for name in copied_paths(text, dict(build.arguments)):
        found = glob.glob(str(context / name)) if "*" in name else [str(context / name)]
        for path in map(Path, found):
            if path.is_dir() and code.is_relative_to(path):
                depth = max(depth, len(path.parts))
    return depth


def _code(survey: Survey) -> Path:
    """The project's outermost package, or else its folder."""
    if survey.dagster is not None:
        parts = survey.dagster.root.split(".")
        for folder in import_roots(survey.root):
            if folder.joinpath(*parts).is_dir():
                return folder.joinpath(*parts)
    parents = [survey.root / path.parent for path in survey.state_directories]
    return next((path for path in parents if path.is_dir()), survey.root)


def _names(survey: Survey, build: DeclaredBuild) -> bool:
    """Whether the declaration is about the project: by its module or its folder."""
    names = {survey.root.name, *([survey.dagster.root] if survey.dagster else [])}
    said = f"{build.about} {build.arguments}"
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said) for name in names)


# --- reading --------------------------------------------------------------------------------


def _yaml(path: Path) -> Mapping[str, Any]:
    """A file's mapping; empty if it cannot be read."""
    try:
        return read_yaml(path)
    except ValueError:
        return {}


def read_yaml(file: Path) -> Mapping[str, Any]:
    """A file's mapping; empty for anything else. Raises `ValueError` with why it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # With the tags of Compose, such as `!override`.
        document = YAML(typ="rt", pure=True).load(scanned(file))
    except YAMLError as error:
        raise ValueError(str(getattr(error, "problem", None) or "it is not YAML")) from error
    return document if isinstance(document, Mapping) else {}


def arguments_of(given: Any) -> tuple[tuple[str, str], ...]:
    """The build arguments, given as a mapping or as ``NAME=value``; without those that have no
    value."""
    pairs: Iterable[tuple[Any, Any]] = given.items() if isinstance(given, Mapping) else ()
    if isinstance(given, list):
        pairs = (str(item).strip().partition("=")[::2] for item in given if "=" in str(item))
    return tuple((str(name), str(value)) for name, value in pairs if value is not None)


def _is_known(text: str) -> bool:
    """Whether a matrix can contain it: nothing that a shell or another context would expand."""
    return "$" not in _FIXED.sub("", text)


def _is_public(name: str, value: str) -> bool:
    """Whether a build argument may be in a committed file."""
    return (
        not has_a_secret_name(name) and _is_known(f"{name}{value}") and not has_credentials(value)
    )


def _without_tag(image: str) -> str:
    """The repository of a name; empty if a part of it is unknown."""
    head, _, last = image.partition("@")[0].rpartition("/")
    name = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    return name if head and _is_known(name) else ""


def _matrix(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values of each job of a matrix; one empty job for no matrix, or a computed one."""
    lists = {name: value for name, value in matrix.items() if isinstance(value, list)}
    include = lists.pop("include", [])
    lists.pop("exclude", None)
    combined = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    jobs = [*(combined if lists else []), *(item for item in include if isinstance(item, Mapping))]
    flat = [_flat(job, "matrix") for job in jobs]
    return flat or [{}]


def _flat(data: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        key = f"{prefix}.{name}"
        found |= _flat(value, key) if isinstance(value, Mapping) else {key: value}
    return found


def _expanded(value: Any, values: Mapping[str, Any]) -> Any:
    """With a workflow's expressions replaced, as far as they are known."""
    if isinstance(value, Mapping):
        return {name: _expanded(item, values) for name, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, values) for item in value]
    if not isinstance(value, str):
        return value
    return _EXPRESSION.sub(lambda found: str(values.get(found[1], found[0])), value)
