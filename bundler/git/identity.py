"""Identifies the code that an artifact is built from, for the run record."""

from __future__ import annotations

import os

from bundler.git.repository import Question, Repository, open_repository
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class CodeIdentity(NamedTuple):
    """Identifies the code that is checked out.

    commit and tree are None before the first commit. dirty: whether the work tree differs from the
    commit; files that are neither tracked nor ignored count, since a build can include them.
    remote: without credentials; None if no remote has a meaning on another machine.
    """

    commit: str | None
    tree: str | None
    dirty: bool
    remote: str | None


def code_identity(root: str | os.PathLike[str]) -> CodeIdentity | None:
    """The commit, tree, remote and cleanliness for the run record; None without a repository.

    Raises `ToolFailed` if git cannot answer.
    """
    repository = open_repository(root)
    if repository is None:
        return None
    wanted = r"^(remote\..*\.url|branch\..*\.remote|filter\..*\.(clean|process|required))$"
    questions = [
        Question(["config", "-z", "--get-regexp", wanted], expected=(0, 1)),
        Question(["symbolic-ref", "-q", "--short", "HEAD"], expected=(0, 1)),
    ]
    if repository.head is not None:
        questions.append(Question(["rev-parse", "--verify", "HEAD^{tree}"]))
    configured, branch, *tree = repository.ask(*questions)
    records = os.fsdecode(configured).split("\0")
    settings = dict(record.partition("\n")[::2] for record in records if record)
    return CodeIdentity(
        repository.head,
        tree[0].decode().strip() if tree else None,
        repository.top is not None and _is_dirty(repository, settings),
        _remote(settings, os.fsdecode(branch).strip()),
    )


def commit_of(root: str | os.PathLike[str], revision: str) -> str | None:
    """The commit that a name (``HEAD``, a tag) resolves to in the repository here.

    None if there is no repository or no such commit.
    """
    repository = open_repository(root)
    if repository is None:
        return None
    arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    (answer,) = repository.ask(Question(arguments, expected=(0, 1)))
    return answer.decode().strip() or None


def _is_dirty(repository: Repository, settings: Iterable[str]) -> bool:
    # A clean filter runs a program that the repository names as soon as a file's times have
    # changed. An empty filter leaves the file as it is. Submodules are not entered, since git would
    # ask there in a separate process, without these overrides: only their commit is compared.
    filters = [name for name in settings if name.startswith("filter.")]
    variables = dict(repository.environment)
    count = int(variables.get("GIT_CONFIG_COUNT") or 0)
    for number, name in enumerate(filters, count):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = "false" if name.endswith(".required") else ""
    variables["GIT_CONFIG_COUNT"] = str(count + len(filters))
    options = ["--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=dirty"]
    asking = repository._replace(environment=variables)
    (answer,) = asking.ask(Question(["status", "--no-renames", *options]))
    return bool(answer)


def _remote(settings: Mapping[str, str], branch: str) -> str | None:
    """The remote that the branch follows, else origin, else the only remote."""
    urls = {
        name.removeprefix("remote.").removesuffix(".url"): value
        for name, value in settings.items()
        if name.startswith("remote.")
    }
    name = settings.get(f"branch.{branch}.remote", "origin")
    only = next(iter(urls.values())) if len(urls) == 1 else None
    url = urls.get(name) or urls.get("origin") or only
    return without_credentials(url) if url else None


def without_credentials(url: str) -> str | None:
    """The address of a remote without credentials; None for a path, which is meaningless
    elsewhere."""
    scheme, separator, _ = url.partition("://")
    if separator and "::" not in scheme:
        from urllib.parse import urlsplit, urlunsplit

        if scheme.lower() == "file":
            return None
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        # For ssh the user name is part of the address; elsewhere it may be a token.
        keeps_user = "ssh" in scheme.lower() and user
        place = f"{user.partition(':')[0]}@{host}" if keeps_user else host
        return urlunsplit((parts.scheme, place, parts.path, "", ""))
    host, colon, path = url.partition(":")
    is_address = colon and "/" not in host and not path.startswith(":")
    return url if is_address else None
