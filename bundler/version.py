"""The version, in one place."""

__version__ = "0.1.0"

# Of every JSON document that a command prints: new members do not change it, other changes do.
SCHEMA_VERSION = 2
