"""Do the external systems answer, and take the credentials? Asked in seconds, nothing refreshed."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.errors import BadData, BundlerError, CredentialsRefused, ToolFailed, Unavailable
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import set_in_pyproject

_UNSEEN = (
    "A component that uses gRPC, pycurl or another program is judged only by its exceptions: "
    "a partial failure that it ignores is not detected."
)


def reach(patient: DoctorContext) -> Iterator[Finding]:
    """One finding a key whose component asks anybody."""
    from bundler.project.projects import open_project
    from bundler.refresh.reach import reach as reach_all

    project = open_project(patient.survey.root, python=patient.python)
    for reached in reach_all([project]):
        if reached.failure is not None:
            yield _failed(reached.failure)
        elif reached.how == "nothing":
            yield Finding(
                "warn",
                f"{reached.key}: no request was observed.",
                _UNSEEN,
                set_in_pyproject(
                    ("tool", "state-bundler", "keys", reached.key, "reach"),
                    ["curl", "-fsS", "https://…"],
                ),
            )
        else:
            yield Finding("ok", _answered(reached.key, reached.hosts, reached.how, reached.seconds))


def _answered(key: str, hosts: tuple[str, ...], how: str, seconds: float) -> str:
    who = " and ".join(hosts)
    untried = "; its credentials were not checked" if how == "a connection" else ""
    return f"{key}: {who} answered ({how}, {seconds:.1f} s){untried}."


def _failed(failure: BundlerError) -> Finding:
    whys = {
        CredentialsRefused: "A refresh with these credentials fails.",
        Unavailable: "A refresh fails now, unless --allow-stale accepts the last good state.",
        BadData: "The system responds, but not as the component expects.",
        ToolFailed: "The component fails before its system responds.",
    }
    return Finding("fail", failure.what, whys.get(type(failure), ""), failure.hint)
