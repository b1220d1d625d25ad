"""Judges what a command wrote as if it were an answer: nothing else sees its requests.

A proxy's login page, a document that only reports an error, or half of one, with exit code 0.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bundler.errors import BadData
from bundler.project.options import KeyOptions
from bundler.refresh.outcome.exchanges import Exchange, is_expected
from bundler.system.atomic import io_errors
from bundler.worker.bodies import Body
from bundler.worker.error_objects import error_in

_PIECE_BYTES = 256 * 1024
_SAYS = {
    "html": "is an HTML page",
    "not-json": "is a JSON or XML document that is incomplete or malformed",
    "error-object": "only reports an error",
    "graphql-errors": "is a GraphQL answer with errors",
}


class _FoundFault:
    """What `bundler.worker.bodies` needs of a recorder."""

    fault = ""

    def reject(self, _number: int, fault: str, _code: int | None = None) -> None:
        self.fault = self.fault or fault

    def quiet(self) -> nullcontext[None]:
        return nullcontext()

    def error_in(self, value: Any) -> tuple[str, int | None] | None:
        return error_in(value)


def refuse_no_data(key: str, state: Path, options: KeyOptions) -> None:
    """Raises `BadData` if the file is no data but what a server sends instead, and `allow-http`
    does not name it."""
    found = _FoundFault()
    body = Body(found, 0, kind="", asks=True, coding="", length=None)
    with io_errors(state), open(state, "rb") as stream:
        while not found.fault and (piece := stream.read(_PIECE_BYTES)):
            body.take(piece)
    body.end()
    says = _SAYS.get(found.fault)
    answer = Exchange(0, "GET", "", "", status=200, body=found.fault)
    if says is None or is_expected(answer, options.allow_http):
        return
    raise BadData.of_key(
        key,
        f"the command succeeded, but what it wrote {says}.",
        hint="Make the command fail if its request does, such as with `curl --fail`. If that is "
        f'expected, accept it: allow-http = ["* * {found.fault}"].',
    )
