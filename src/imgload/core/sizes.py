"""How many bytes, as people write it: ``8 KiB``, ``1.5 GiB``."""

from __future__ import annotations

_KIB = 1024
_SMALL = ("B", "KiB", "MiB")


def size_text(size: float) -> str:
    """Return bytes in the largest fitting binary unit; from GiB on with one decimal."""
    for unit in _SMALL:
        if round(size) < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    if round(size, 1) < _KIB:
        return f"{size:.1f} GiB"
    return f"{size / _KIB:.1f} TiB"
