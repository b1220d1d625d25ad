"""Scripts that stand for the command of a source, and the key that they fetch."""

from __future__ import annotations

import json
from collections.abc import Callable

from bundler.refresh.run import Refreshed

KEY = "Vendor[catalogue]"
Refresh = Callable[..., Refreshed]


def writes(value: object) -> str:
    return f"open(path, 'w').write({json.dumps(json.dumps(value))})"


def items(count: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(count)]
