"""The only commit that we create: the one of the demo's sample project."""

from __future__ import annotations

import os

from bundler.git.repository import Question, initialised


def commit_all(folder: str | os.PathLike[str], message: str) -> None:
    """Initialises a git repository in the folder if needed, and commit everything in it.

    Raises `ToolFailed` if git is missing or fails.
    """
    repository = initialised(folder)
    settings = ("commit.gpgsign=false", "user.name=Demo", "user.email=demo@example.org")
    options = [word for setting in settings for word in ("-c", setting)]
    repository.ask(Question(["add", "--all"]))
    repository.ask(Question([*options, "commit", "--quiet", "--allow-empty", "-m", message]))
