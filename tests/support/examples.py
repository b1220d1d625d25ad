"""How many examples a property is tried with: all of them, or in `make quick` a fifth."""

from __future__ import annotations

from hypothesis import settings

_FULL = 100
PROFILE = "any-machine"
# A busy machine is no failure.
settings.register_profile(PROFILE, deadline=None)
settings.register_profile("quick", settings.get_profile(PROFILE), max_examples=_FULL // 5)


def scaled(number: int) -> int:
    """What `number` is in the profile in use, for a test that names its own number."""
    return max(1, number * settings().max_examples // _FULL)
