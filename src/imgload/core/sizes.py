"""Sizes as text: ``8 KiB``, ``1.5 GiB``."""

from __future__ import annotations

_KIB = 1024


def size_text(size: float) -> str:
    """Format bytes in the largest fitting binary unit; from GiB on with one decimal."""
    for unit in ("B", "KiB", "MiB"):
        if round(size) < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB" if round(size, 1) < _KIB else f"{size / _KIB:.1f} TiB"
