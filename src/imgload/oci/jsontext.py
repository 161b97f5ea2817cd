"""JSON from anywhere, parsed within bounds: its values, its nesting and its numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

MAX_VALUES = 250_000
"""Values of one document; each takes up to 200 bytes, however short it is written."""
MAX_DEPTH = 100
_MAX_DIGITS = 20
"""Of an integer: as many as 64 bits have, which is what programs in Go read."""
_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"
_PUNCTUATION = ",[{"
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def load_json(raw: bytes | str, *, most: int | None = MAX_VALUES) -> Any:
    """Parse a document.

    Args:
        raw: the document; bytes are UTF-8.
        most: how many values it may have; None for any number.

    Raises:
        ValueError: when it is not valid, or goes beyond the bounds above.

    """
    text = raw if isinstance(raw, str) else raw.decode()
    if most is not None and _has_more_values(text, most):
        raise ValueError(f"it has more than {most} values")
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError(_DEEP) from error
    if _is_deep(value):
        raise ValueError(_DEEP)
    return value


def _has_more_values(text: str, most: int) -> bool:
    """Whether it has more values; what is inside strings is told apart only where it matters."""
    if sum(map(text.count, _PUNCTUATION)) <= most:
        return False
    count = 0
    for token in _TOKEN.finditer(text):
        count += token.end() - token.start() == 1
        if count > most:
            return True
    return False


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return any(isinstance(child, dict | list) for child in level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"a number is too large: {digits:.20}")
    return value


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
