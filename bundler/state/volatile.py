"""What changes in a state at every run without meaning anything.

Members are names in JSON documents; files are patterns of paths in a key directory.
"""

from __future__ import annotations

DBT_MEMBERS = (
    "created_at",
    "generated_at",
    "invocation_id",
    "invocation_started_at",
    "root_path",  # the project's directory, in seeds
    "run_started_at",
)
DBT_FILES = ("*/partial_parse.msgpack", "*/perf_info.json", "*.log")
FIVETRAN_MEMBERS = ("succeeded_at",)

ALL_MEMBERS = frozenset((*DBT_MEMBERS, *FIVETRAN_MEMBERS))
