"""Reading YAML from untrusted files: nothing runs, converts or nests endlessly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

MAX_DEPTH = 100
MAX_VALUES = 500_000
"""Values of one document; each takes up to 200 bytes of memory."""
_NULLS = {"", "~", "null", "Null", "NULL"}


class Mapping(dict[str, Any]):
    """A mapping, and the number of its line, from 1."""

    line = 0


@attrs.define
class _Collection:
    """A collection that is being read, and the key of the next value of a mapping."""

    value: Mapping | list[Any]
    key: str | None = None

    def add(self, value: Any, line: int) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is not None:
            self.value[self.key] = value
            self.key = None
        elif not isinstance(value, str):
            raise ValueError(f"line {line}: a key is not a string")
        elif value in self.value:
            raise ValueError(f"line {line}: {value!r:.100} is set twice")
        else:
            self.key = value


def parse_events(data: bytes) -> Iterator[Any]:
    """Yield the events of a YAML stream; ValueError if it is not valid."""
    import yaml  # noqa: PLC0415 - start-up

    try:
        yield from yaml.parse(data.decode(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ValueError(f"{line}{problem}") from error


def is_text(event: Any) -> bool:
    """Return whether YAML reads a scalar as a string: ``"1"`` is one, ``~`` and ``1`` are not."""
    from yaml import ScalarNode  # noqa: PLC0415 - start-up
    from yaml.resolver import Resolver  # noqa: PLC0415

    resolver: Any = Resolver()
    tag = event.tag or resolver.resolve(ScalarNode, event.value, event.implicit)
    return bool(tag == "tag:yaml.org,2002:str")


def read_documents(data: bytes) -> Iterator[Any]:
    """Yield the documents of a YAML stream: `Mapping`, lists, and scalars as written.

    Null is None. An alias is the value of its anchor, and not a copy: walk through each value only
    once. ValueError is raised if the stream is not valid, or beyond a limit.
    """
    anchors: dict[str, Any] = {}
    parents: list[_Collection] = []
    count = 0
    for event in parse_events(data):
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            anchors, parents, count = {}, [_Collection([])], 0
        elif kind == "DocumentEndEvent":
            yield from parents.pop().value
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            parents.pop()
        elif kind not in {"StreamStartEvent", "StreamEndEvent"}:
            line = event.start_mark.line + 1
            value = _value(kind, event, anchors, line)
            parents[-1].add(value, line)
            if kind in {"MappingStartEvent", "SequenceStartEvent"}:
                parents.append(_Collection(value))
            count += 1
            if len(parents) > MAX_DEPTH:
                raise ValueError(f"line {line}: it is nested more than {MAX_DEPTH} levels deep")
            if count > MAX_VALUES:
                raise ValueError(f"line {line}: it has more than {MAX_VALUES} values")


def _value(kind: str, event: Any, anchors: dict[str, Any], line: int) -> Any:
    """Return the value that an event begins, and note its anchor."""
    if kind == "AliasEvent":
        if event.anchor not in anchors:
            raise ValueError(f"line {line}: no anchor {event.anchor!r:.100}")
        return anchors[event.anchor]
    value: Any = []
    if kind == "MappingStartEvent":
        value = Mapping()
        value.line = line
    elif kind == "ScalarEvent":
        value = None if event.implicit[0] and event.value in _NULLS else event.value
    if event.anchor:
        anchors[event.anchor] = value
    return value
