"""Parse command lines by the rules and with the messages of cobra and pflag.

kind and k3d use both libraries: cobra's ``Command.Find`` and pflag's ``FlagSet.Parse``. Flags may
stand anywhere, ``-nNAME`` and ``-n=NAME`` are ``-n NAME``, names cannot be abbreviated, and ``--``
ends the flags. argparse and click differ in each of these and in their messages.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from imgload.core.errors import UsageError

_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
_BOOLS |= dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
_NUMBER = re.compile(r"[+-]?\w+", re.ASCII)
_OCTAL = re.compile(r"^([+-]?)0_?(?=[0-7])")
_FIELD = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^",]*)')
_INT32 = range(-(1 << 31), 1 << 31)


def quoted(text: str) -> str:
    """Return a text in quotes, as Go's ``%q`` writes it."""
    return json.dumps(text, ensure_ascii=False)


def to_bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return _BOOLS[text]


def to_int32(text: str) -> int:
    """Parse a number in Go's syntax: ``0x1F``, ``0b1``, and ``010`` is eight."""
    try:
        number = int(_OCTAL.sub(r"\g<1>0o", text) if _NUMBER.fullmatch(text) else "", 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax") from None
    if number not in _INT32:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return number


def to_list(text: str) -> list[str]:
    """Parse comma-separated values, which may be quoted (Go's encoding/csv)."""
    matches = list(_FIELD.finditer(text)) if text else []
    if "".join(match[0] for match in matches) != text:
        raise ValueError('parse error: bare or extraneous "')
    fields = (match[1] for match in matches)
    return [f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields]


@attrs.frozen
class Flag:
    """A flag; `alone` is its value if no value follows (pflag's NoOptDefVal).

    If `convert` returns lists, those of several occurrences are joined; otherwise the last counts.
    """

    name: str
    short: str = ""
    convert: Callable[[str], Any] = str
    alone: str = ""

    def __str__(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


def switch(name: str, short: str = "") -> Flag:
    """Return a flag that is true if no value follows."""
    return Flag(name, short, to_bool, "true")


Commands = Mapping[tuple[str, ...], Sequence[Flag]]
"""The flags of each command, by its path below the program; the program's own path is empty."""


def find(commands: Commands, arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the path of the command, and the arguments without it."""
    path: tuple[str, ...] = ()
    rest = list(arguments)
    while (index := _first_word(rest, commands[path])) is not None:
        longer = (*path, rest[index])
        if longer not in commands:
            break
        path = longer
        del rest[index]
    return path, rest


def _first_word(arguments: Sequence[str], flags: Iterable[Flag]) -> int | None:
    """Return the index of the first word; the one after an unknown flag counts as its value."""
    alone = {text for text, flag in _spellings(flags).items() if flag.alone}
    index = 0
    while index < len(arguments) and (text := arguments[index]) != "--":
        if text and text[0] != "-":
            return index
        takes_value = text.startswith("--") or len(text) == len("-n")
        index += 2 if takes_value and "=" not in text and text not in alone else 1
    return None


def _spellings(flags: Iterable[Flag]) -> dict[str, Flag]:
    return {text: flag for flag in flags for text in (f"--{flag.name}", f"-{flag.short}")}


def parse(
    flags: Iterable[Flag], arguments: Iterable[str], unknown: Flag | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values by flag, and the words; UsageError has pflag's messages.

    `unknown` stands for every flag that is not among `flags`; None refuses them.
    """
    spellings, rest = _spellings(flags), deque(arguments)
    values: dict[str, Any] = {}
    words: list[str] = []
    while rest and (text := rest.popleft()) != "--":
        if text == "-" or not text.startswith("-"):
            words.append(text)
            continue
        for flag, value in _occurrences(text, rest, spellings, unknown):
            try:
                converted = flag.convert(value)
            except ValueError as error:
                message = f'invalid argument {quoted(value)} for "{flag}" flag: {error}'
                raise UsageError(message) from error
            if isinstance(converted, list):
                converted = values.get(flag.name, []) + converted
            values[flag.name] = converted
    return values, (*words, *rest)


def _occurrences(
    text: str, rest: deque[str], spellings: Mapping[str, Flag], unknown: Flag | None
) -> Iterator[tuple[Flag, str]]:
    """Yield the flags of one argument with their values; a value may be the next argument."""
    if text.startswith("--"):
        name, equals, value = text.partition("=")
        if name[2:3] in {"", "-"}:
            raise UsageError(f"bad flag syntax: {text}")
        flag = _known(spellings.get(name, unknown), f"flag: {name}")
        yield flag, value if equals else flag.alone or _next_value(rest, name)
        return
    letters = text[1:]
    while letters:
        position = f"{letters[0]!r} in -{letters}"
        flag = _known(spellings.get(f"-{letters[0]}", unknown), f"shorthand flag: {position}")
        letters = letters[1:]
        if len(letters) > 1 and letters[0] == "=":
            yield flag, letters[1:]
            return
        yield flag, flag.alone or letters or _next_value(rest, position)
        if not flag.alone:
            return


def _known(flag: Flag | None, text: str) -> Flag:
    if flag is None:
        raise UsageError(f"unknown {text}")
    return flag


def _next_value(rest: deque[str], text: str) -> str:
    if not rest:
        raise UsageError(f"flag needs an argument: {text}")
    return rest.popleft()
