"""Bakes the state of external systems into the artifact that ships, and proves that it is there."""

__version__ = "0.1.0"
