"""Refreshing states: find components, fetch, judge, publish. `run` does everything."""
