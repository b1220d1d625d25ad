"""Checks that the external systems answer and accept the credentials. Only with ``doctor
--reach``."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.errors import BadData, BundlerError, CredentialsRefused, ToolFailed, Unavailable
from bundler.refresh.reach import REACH_SECONDS
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import command, set_in_pyproject

_UNSEEN = (
    "A component that uses gRPC, pycurl or another program is judged only by its exceptions: "
    "a partial failure that it ignores is not detected."
)


def reach(patient: DoctorContext) -> Iterator[Finding]:
    """One finding for each key whose component asks an external system."""
    looked = patient.looked()
    if not patient.reaches:
        if any(found.components for found in looked.found):
            fix = command("state-bundler doctor --reach", patient.survey.root)
            yield Finding("ok", f"No external system was contacted. To check them: {fix}")
        return
    for reached in looked.reached:
        if reached.failure is not None:
            yield _failed(reached.failure)
        elif reached.how == "nothing":
            is_cut = reached.seconds >= REACH_SECONDS
            during = f" in its first {REACH_SECONDS:g} s" if is_cut else ""
            yield Finding(
                "warn",
                f"{reached.key}: no request was observed{during}.",
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
