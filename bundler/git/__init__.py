"""Asks git. The only module that composes git's argv.

What holds for every question here:

- It is read-only, except for `forget` and `commit_all`, and executes nothing that a repository
sets:
  fsmonitor and hooks are overridden, no filter, diff driver, pager or alias takes part in the
  commands used, and no transport is allowed, so that a missing object is a failure and not a
  download.
- The environment is cleaned: of ``GIT_*`` only the user's configuration survives
  (`repository._KEPT`) and, for a hook's question about its own repository, what git handed to it.
- Paths are bytes, NUL-separated, literal.
- Any exit code that the question does not expect is `ToolFailed`: "could not ask" is never "no".

The guard asks by plain processes (`system.fast_process`); everything else, and the guard's listing
of the whole history, through GitPython (`runner`).
"""

from __future__ import annotations

from bundler.git.history import (
    Object,
    branches,
    changes_in,
    commits,
    entries_of,
    is_shallow,
    objects,
    refs_to_no_commit,
    stashes,
)
from bundler.git.identity import CodeIdentity, code_identity, commit_of
from bundler.git.questions import (
    IgnoreRule,
    IndexEntry,
    StagedChange,
    addable_question,
    below,
    blobs,
    blobs_in_head,
    changes,
    empty_repository,
    empty_tree,
    everywhere,
    exactly,
    existing,
    forget,
    hooks_path,
    ignored_below,
    ignores_case,
    in_index,
    index_bytes,
    index_entries,
    index_question,
    object_id,
    require_whole_index,
    rules,
    rules_question,
    sizes,
    staged_question,
    tree_entries,
)
from bundler.git.repository import FETCH_ALL, Question, Repository, open_repository
from bundler.git.words import literal, printable, quoted
