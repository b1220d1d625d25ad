"""Makes the profile of `make quick` known."""

from tests.support import examples  # noqa: F401
