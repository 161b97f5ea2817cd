"""The part of the protobuf wire format that CRI's services need."""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | bytes


def field(number: int, value: str | bytes) -> bytes:
    """Return an encoded field: a string or a nested message."""
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def number(at: int, value: int) -> bytes:
    """Return an encoded field: a non-negative number."""
    return _varint(at << 3 | _VARINT) + _varint(value)


def flag(at: int) -> bytes:
    """Return an encoded field: true."""
    return number(at, 1)


class Message:
    """A decoded message: its fields by number, in order."""

    def __init__(self, raw: bytes) -> None:
        """Decode one level; nested messages stay encoded."""
        self._fields: dict[int, list[Value]] = {}
        for number, value in _decode(raw):
            self._fields.setdefault(number, []).append(value)

    def integer(self, number: int) -> int:
        """Return the number in a field, 0 if it is absent."""
        return next((v for v in self._fields.get(number, ()) if isinstance(v, int)), 0)

    def texts(self, number: int) -> list[str]:
        """Return all strings in a repeated field."""
        return [value.decode() for value in self._blobs(number)]

    def text(self, number: int) -> str:
        """Return the string in a field, empty if it is absent."""
        return next(iter(self.texts(number)), "")

    def messages(self, number: int) -> "list[Message]":
        """Return all messages in a repeated field."""
        return [Message(value) for value in self._blobs(number)]

    def mapping(self, number: int) -> dict[str, str]:
        """Return a map of strings to strings."""
        return {entry.text(1): entry.text(2) for entry in self.messages(number)}

    def _blobs(self, number: int) -> list[bytes]:
        return [v for v in self._fields.get(number, ()) if isinstance(v, bytes)]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _decode(raw: bytes) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(raw, at)
            yield key >> 3, value
            continue
        size, at = _read_varint(raw, at) if kind == _BYTES else (_fixed(kind), at)
        yield key >> 3, raw[at : at + size]
        at += size


def _fixed(kind: int) -> int:
    return {_FIXED64: 8, _FIXED32: 4}[kind]


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
