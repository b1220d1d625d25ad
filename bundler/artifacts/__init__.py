"""Artifacts: what ships the state. One module a kind; each embeds state and reads it back.

A kind offers two things:

- an `Artifact`, opened for reading: its claims, its run record, and every state directory in it;
- a function ``embed`` that makes the artifact with the bundles in it, and leaves what was there
  before untouched until the new one is whole.

Reading never trusts: an `Artifact` reports what is there, `bundler.artifacts.verify` judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

import msgspec

from bundler.state.artifact import LABEL_RUN_RECORD, LABEL_STATES, Artifact, Member, StateDirectory
from bundler.state.manifest import Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self
