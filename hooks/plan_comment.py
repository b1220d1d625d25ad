"""Posts a plan as a comment on the pull request or merge request that CI runs for: one, updated.

    state-bundler plan docker://ghcr.io/acme/shop:main --format json > plan.json
    python -m bundler.hooks.plan_comment plan.json

GitHub needs GH_TOKEN with `pull-requests: write`, GitLab needs GITLAB_TOKEN with the scope `api`.
The comment is found again by a mark in it. If nothing would change, an existing comment says so,
and no new one is made.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MARK = "<!-- state-bundler plan -->"
_MOST_TEXT = 60_000  # GitHub takes 65,536
_PAGE = 100
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Comments:
    """The comments of one request. all: their URL. one: the URL of a comment, with its id."""

    all: str
    one: str
    headers: Mapping[str, str]
    method: str

    @classmethod
    def of_github(cls, environ: Mapping[str, str]) -> Comments:
        api = f"{environ['GITHUB_API_URL']}/repos/{environ['GITHUB_REPOSITORY']}/issues"
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        headers = {"Authorization": f"Bearer {environ['GH_TOKEN']}"}
        comments = f"{api}/{event['pull_request']['number']}/comments"
        return cls(comments, f"{api}/comments/{{id}}", headers, "PATCH")

    @classmethod
    def of_gitlab(cls, environ: Mapping[str, str]) -> Comments:
        project = f"{environ['CI_API_V4_URL']}/projects/{environ['CI_PROJECT_ID']}"
        notes = f"{project}/merge_requests/{environ['CI_MERGE_REQUEST_IID']}/notes"
        headers = {"PRIVATE-TOKEN": environ["GITLAB_TOKEN"]}
        return cls(notes, f"{notes}/{{id}}", headers, "PUT")

    def put(self, text: str, *, create: bool) -> str | None:
        """Updates our comment, or makes it. Returns what was done; None if that was nothing."""
        ours = next((it["id"] for it in self._existing() if it["body"].startswith(_MARK)), None)
        if ours is not None:
            self._ask(self.method, self.one.format(id=ours), {"body": text})
            return "updated"
        if not create:
            return None
        self._ask("POST", self.all, {"body": text})
        return "made"

    def _existing(self) -> Iterator[dict[str, Any]]:
        page = 1
        while found := self._ask("GET", f"{self.all}?per_page={_PAGE}&page={page}"):
            yield from found
            page += 1

    def _ask(self, method: str, url: str, body: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # CI's own
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return json.load(answer)


def text_of(plan: Mapping[str, Any]) -> str:
    """The comment for a plan's JSON."""
    text = _shortened(str(plan["markdown"]))
    if plan["changes"]:
        return f"{_MARK}\n## State: what a refresh would change\n\n{text}"
    told = f"{_MARK}\n### State\n\nA refresh would change nothing."
    # Keys that a plan does not refresh may change, and what needs approval is not "nothing".
    is_all = not plan["notRefreshed"] and not any(it["refused"] for it in plan["baselines"])
    return told if is_all else f"{told}\n\n{text}"


def _shortened(text: str) -> str:
    """At most what a comment takes, cut between lines and with everything closed that is open."""
    if len(text) <= _MOST_TEXT:
        return text
    kept = text[:_MOST_TEXT].rpartition("\n")[0]
    lines = kept.split("\n")
    is_fenced = sum(line.startswith("````") for line in lines) % 2
    is_folded = sum(it.startswith("<details>") - (it == "</details>") for it in lines) > 0
    closed = ("\n````" if is_fenced else "") + ("\n\n</details>" if is_folded else "")
    return f"{kept}{closed}\n\n… The rest is in the job's log."


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    plan = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    make = Comments.of_gitlab if "GITLAB_CI" in environ else Comments.of_github
    try:
        done = make(environ).put(text_of(plan), create=plan["changes"])
    except KeyError as error:
        sys.stderr.write(f"The comment needs {error}, which is not set.\n")
        return 78
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"The comment was refused: HTTP {error.code} from {error.url}.\n")
        return 77 if error.code in (401, 403) else 69
    except OSError as error:
        sys.stderr.write(f"The comment could not be posted: {error}.\n")
        return 69
    told = f"Comment {done}." if done else "Nothing changes, and there is no comment to update."
    sys.stdout.write(f"{told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
