"""The guard: no state ever enters the repository.

It answers at four moments: ``staged`` (what the commit being made will contain), ``build`` (the
index, HEAD and the ignore rules), ``push`` and ``receive`` (the commits that are pushed, seen from
the one end and the other) and ``history`` (everything that any ref reaches). A finding fails or
warns; if git cannot answer, the guard raises `ToolFailed` and never says "clean".
"""
