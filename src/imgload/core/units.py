"""Sizes and ages as text: ``8 KiB``, ``1.5 GiB``, ``90s``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

from imgload.core.errors import UsageError

_KIB = 1024
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d{1,6})([wdhms])", re.ASCII)
_SIZE = re.compile(r"(\d{1,6}) ?([KMGT]i?B)", re.ASCII)
_AGE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def size_text(size: float) -> str:
    """Format bytes in the largest fitting binary unit; from GiB on with one decimal."""
    for unit in ("B", "KiB", "MiB"):
        if round(size) < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB" if round(size, 1) < _KIB else f"{size / _KIB:.1f} TiB"


def parse_size(text: str) -> int:
    """Parse a size such as ``500MB`` or ``10GiB``; raise UsageError for other text."""
    match = _SIZE.fullmatch(text)
    if not match:
        hint = "write a number and MB, GB, MiB or GiB, for example 10GiB"
        raise UsageError(f"not a size: {text!r:.80}", hint=hint)
    base = _KIB if match[2].endswith("iB") else 1000
    exponent: int = "KMGT".index(match[2][0]) + 1
    return int(match[1]) * int(base**exponent)


def parse_age(text: str) -> timedelta:
    """Parse an age such as ``24h``, ``7d`` or ``1h30m``; raise UsageError for other text."""
    if not _AGE.fullmatch(text):
        hint = "write a number and s, m, h, d or w, for example 24h"
        raise UsageError(f"not an age: {text!r:.80}", hint=hint)
    return timedelta(seconds=sum(int(n) * _SECONDS[unit] for n, unit in _PART.findall(text)))


def age_text(seconds: float) -> str:
    """Format an age in its largest unit up to days; `parse_age` accepts the result."""
    unit = next((u for u, length in _SECONDS.items() if u != "w" and seconds >= length), "s")
    return f"{max(int(seconds // _SECONDS[unit]), 0)}{unit}"
