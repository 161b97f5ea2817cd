"""A command-line parser with the rules and error messages of cobra and pflag.

kind and k3d use both libraries: cobra's ``Command.Find`` and pflag's ``FlagSet.Parse``. Flags may
stand anywhere, ``-nNAME`` and ``-n=NAME`` are ``-n NAME``, names cannot be abbreviated, and ``--``
ends the flags. argparse and click differ in each of these and in their messages.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from imgload.core.errors import UsageError

_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
_BOOLS |= dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
_NUMBER = re.compile(r"[+-]?\w+", re.ASCII)
_OCTAL = re.compile(r"^([+-]?)0_?(?=[0-7])")
_FIELDS = re.compile(r'("([^"]|"")*"|[^",]*)(,("([^"]|"")*"|[^",]*))*')
_FIELD = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^",]*)')
_INT32 = range(-(1 << 31), 1 << 31)


@attrs.frozen
class Flag:
    """A flag; a `list` has values separated by commas."""

    name: str
    short: str = ""
    takes: Literal["string", "list", "int32", "bool"] = "string"

    def __str__(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


@attrs.frozen
class Command:
    """A command; `names` includes its aliases, and its subcommands have the `shared` flags, too."""

    names: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    shared: tuple[Flag, ...] = ()
    subcommands: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]


@attrs.frozen
class ParsedArgs:
    """The values of each flag, and the arguments that are not flags."""

    flags: Mapping[str, tuple[Any, ...]]
    words: tuple[str, ...]

    def last(self, flag: str, default: Any) -> Any:
        """Return a flag's last value."""
        return (self.flags.get(flag) or (default,))[-1]


_HELP = Flag("help", "h", "bool")


def find(root: Command, arguments: Sequence[str]) -> tuple[tuple[Command, ...], list[str]]:
    """Return the path of commands from the root, and the arguments without their names."""
    path, rest, shared = [root], list(arguments), list(root.shared)
    while (index := _first_word(rest, [*path[-1].flags, *shared])) is not None:
        command = next((c for c in path[-1].subcommands if rest[index] in c.names), None)
        if command is None:
            break
        del rest[index]
        path.append(command)
        shared += command.shared
    return tuple(path), rest


def _first_word(arguments: Sequence[str], flags: Iterable[Flag]) -> int | None:
    """Return the index of the first word; the one after an unknown flag counts as its value."""
    bools = {text for f in flags if f.takes == "bool" for text in (f"--{f.name}", f"-{f.short}")}
    index = 0
    while index < len(arguments) and (text := arguments[index]) != "--":
        if text and text[0] != "-":
            return index
        takes_value = text.startswith("--") or len(text) == len("-n")
        index += 2 if takes_value and "=" not in text and text not in bools else 1
    return None


def parse(path: Sequence[Command], arguments: Iterable[str]) -> ParsedArgs:
    """Parse the arguments of the last command of a path; UsageError has pflag's messages."""
    flags = [_HELP, *path[-1].flags, *(flag for command in path for flag in command.shared)]
    try:
        return _Parser(deque(arguments), flags).parse()
    except UsageError as error:
        hint = " ".join([*(command.name for command in path), "--help"])
        raise UsageError(error.message, hint=hint) from error


def parse_known(arguments: Iterable[str], *flags: Flag) -> ParsedArgs:
    """Parse some flags and ignore all others, up to ``--help``."""
    return _Parser(deque(arguments), flags, lenient=True).parse()


@attrs.define
class _Parser:
    rest: deque[str]
    flags: Sequence[Flag]
    lenient: bool = False

    def parse(self) -> ParsedArgs:
        words: list[str] = []
        values: dict[str, tuple[Any, ...]] = {}
        while self.rest:
            text = self.rest.popleft()
            if text == "--":
                words += self.rest
                break
            if self.lenient and text in {"--help", "-h"}:
                break
            if not text.startswith("-") or text == "-":
                words.append(text)
                continue
            for flag, value in self._long(text) if text[1] == "-" else self._short(text[1:]):
                values[flag.name] = (*values.get(flag.name, ()), *_convert(flag, value))
        return ParsedArgs(values, tuple(words))

    def _long(self, text: str) -> Iterator[tuple[Flag, str]]:
        name, equals, value = text[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {text}")
        flag = next((f for f in self.flags if f.name == name), None)
        if flag is None:
            self._skip(f"flag: --{name}", has_value=bool(equals))
        else:
            yield flag, value if equals else self._next_value(flag, f"--{name}")

    def _short(self, letters: str) -> Iterator[tuple[Flag, str]]:
        """Yield one or several one-letter flags; a value may follow the last one directly."""
        while letters:
            text, letter, letters = letters, letters[0], letters[1:]
            flag = next((f for f in self.flags if f.short == letter), None)
            value = letters[1:] if len(letters) > 1 and letters[0] == "=" else ""
            if flag is None:
                self._skip(f"shorthand flag: {letter!r} in -{text}", has_value=bool(value))
            elif flag.takes == "bool":
                yield flag, value or "true"
            else:
                value = value or letters or self._next_value(flag, f"{letter!r} in -{text}")
                yield flag, value
            if value:
                return

    def _next_value(self, flag: Flag, text: str) -> str:
        if flag.takes == "bool":
            return "true"
        if not self.rest:
            raise UsageError(f"flag needs an argument: {text}")
        return self.rest.popleft()

    def _skip(self, text: str, *, has_value: bool) -> None:
        if not self.lenient:
            raise UsageError(f"unknown {text}")
        if not has_value and self.rest and not self.rest[0].startswith("-"):
            self.rest.popleft()


def quoted(text: str) -> str:
    """Return a text in quotes, as Go's ``%q`` writes it."""
    return json.dumps(text, ensure_ascii=False)


def _convert(flag: Flag, text: str) -> Sequence[Any]:
    try:
        if flag.takes == "bool":
            return [_bool(text)]
        if flag.takes == "int32":
            return [_int32(text)]
        return _list(text) if flag.takes == "list" else [text]
    except ValueError as error:
        message = f'invalid argument {quoted(text)} for "{flag}" flag: {error}'
        raise UsageError(message) from error


def _bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return _BOOLS[text]


def _int32(text: str) -> int:
    """Parse a number in Go's syntax: ``0x1F``, ``0b1``, and ``010`` is eight."""
    try:
        number = int(_OCTAL.sub(r"\g<1>0o", text) if _NUMBER.fullmatch(text) else "", 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax") from None
    if number not in _INT32:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return number


def _list(text: str) -> list[str]:
    """Parse comma-separated values, which may be quoted (Go's encoding/csv)."""
    if not _FIELDS.fullmatch(text):
        raise ValueError('parse error: bare or extraneous "')
    fields = (match[1] for match in _FIELD.finditer(text) if text)
    return [f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields]
