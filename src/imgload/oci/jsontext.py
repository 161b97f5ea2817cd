"""A JSON parser for untrusted documents, with limits on values, nesting and numbers."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_VALUES = 250_000
"""Values of one document; each takes up to 200 bytes of memory, however short its text."""
MAX_DEPTH = 100
_MAX_DIGITS = 20
"""Digits of an integer: the most that 64 bits have, which is what programs in Go read."""
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def load_json(raw: bytes | str, *, most: int | None = MAX_VALUES) -> Any:
    """Parse a document.

    Args:
        raw: the document; bytes are UTF-8.
        most: maximum number of values; None for no limit.

    Raises:
        ValueError: if it is invalid, or exceeds a limit.

    """
    text = raw if isinstance(raw, str) else raw.decode()
    if most is not None and _has_more_values(text, most):
        raise ValueError(f"it has more than {most} values")
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    containers = [value]
    for _ in range(MAX_DEPTH):
        containers = [child for parent in containers for child in _containers(parent)]
        if not containers:
            return value
    raise ValueError(_TOO_DEEP)


def _has_more_values(text: str, limit: int) -> bool:
    if sum(map(text.count, ",[{")) <= limit:
        return False
    count = 0  # the rest is slower: it ignores punctuation within strings
    for token in _TOKEN.finditer(text):
        count += token.end() - token.start() == 1
        if count > limit:
            return True
    return False


def _containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    children = value.values() if isinstance(value, dict) else value
    return [child for child in children if isinstance(child, dict | list)]


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"a number is too large: {digits:.20}")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def dig(document: Any, *keys: str) -> Any:
    """Return the value at nested keys of a parsed document, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text_at(document: Any, *keys: str) -> str:
    """Return the string at nested keys of a parsed document, or an empty string."""
    value = dig(document, *keys)
    return value if isinstance(value, str) else ""
