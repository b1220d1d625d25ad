"""Refreshing states: find components, fetch, judge, publish. `run` does the whole of it."""
