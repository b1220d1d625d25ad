"""Every test with a registry is on its own: no waiting, and nobody's logins or proxies."""

from __future__ import annotations

from tests.support.pushing import alone  # noqa: F401  # a fixture for all
