"""Functions whose return type Dagster cannot tell before it calls them."""

from __future__ import annotations

import dagster as dg

from tiny.numbers import Numbers


@dg.component_instance
def annotated_by_a_string(context) -> Numbers:
    return Numbers(name="by-a-string")


@dg.component_instance
def not_annotated(context):
    return Numbers(name="not-at-all")
