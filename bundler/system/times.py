"""Times as text: RFC 3339, UTC, in whole seconds, as every record here writes them."""

from __future__ import annotations

import os
import time

from bundler.errors import ConfigurationError

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_LAST_SECOND = 253_402_300_799  # of the year 9999
_MOST_DIGITS = 20
# Clocks of build machines differ; a time further in the future was never measured.
CLOCK_SKEW_SECONDS = 300.0


def rfc3339(seconds: float) -> str:
    """A time given in seconds since the epoch."""
    return time.strftime(_FORMAT, time.gmtime(seconds))


def now() -> str:
    """The time of this machine."""
    return rfc3339(time.time())


def reproducible_now() -> str:
    """The time of this machine, or ``SOURCE_DATE_EPOCH`` if it is set.

    Raises `ConfigurationError` if that is not a number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return now()
    digits = epoch.lstrip("0") or "0"
    if not digits.isdecimal() or len(digits) > _MOST_DIGITS or int(digits) > _LAST_SECOND:
        raise ConfigurationError(
            f"SOURCE_DATE_EPOCH={epoch} is not a time.",
            hint="Set it to seconds since 1970, as git log -1 --format=%ct prints, or unset it.",
        )
    return rfc3339(int(digits))


def is_future(age: float) -> bool:
    """Whether a time of this age, in seconds, is one that no clock can have measured."""
    return age < -CLOCK_SKEW_SECONDS


def utc(text: str) -> str:
    """A time in RFC 3339 with any offset, as every record here writes it. Raises `ValueError`."""
    import re
    from datetime import datetime

    whole = re.sub(r"(?<=:\d\d)\.\d+", "", text)  # Python 3.10 reads only three or six digits
    found = datetime.fromisoformat(f"{whole[:-1]}+00:00" if whole[-1:] in ("Z", "z") else whole)
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return rfc3339(min(max(0, found.timestamp()), _LAST_SECOND))


def seconds_of(moment: str) -> int:
    """Seconds since the epoch. Raises `ValueError` for any other form."""
    from datetime import datetime, timezone  # `time.strptime` takes 3 ms more to import

    found = datetime.fromisoformat(moment.removesuffix("Z"))
    if f"{found.isoformat(timespec='seconds')}Z" != moment:
        raise ValueError(f"{moment!r} is not in the form of {rfc3339(0)}")
    return int(found.replace(tzinfo=timezone.utc).timestamp())
