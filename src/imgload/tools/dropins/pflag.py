"""Command lines read the way kind and k3d read them: with cobra and pflag.

The rules are those of cobra's ``Command.Find`` and pflag's ``FlagSet.Parse``, and so is what is
said when they are broken: flags stand anywhere, ``-nNAME`` and ``-n=NAME`` are ``-n NAME``, a
name is never shortened, and ``--`` ends the flags.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from imgload.core.errors import UsageError

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_NUMBER = re.compile(r"[+-]?(0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][\d_]*)", re.ASCII)
_OCTAL = re.compile(r"^([+-]?)0_?(?=[0-7])")
_FIELDS = re.compile(r'("([^"]|"")*"|[^",]*)(,("([^"]|"")*"|[^",]*))*')
_FIELD = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^",]*)')
_INT32 = range(-(1 << 31), 1 << 31)


@attrs.frozen
class Flag:
    """An option; `strings` may be repeated, and `list` has commas, too."""

    name: str
    short: str = ""
    takes: Literal["string", "strings", "list", "int32", "bool"] = "string"

    def __str__(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


@attrs.frozen
class Command:
    """A command or one below it.

    Args:
        names: its own, and its aliases.
        flags: those that it knows, and only it.
        shared: those that the commands below it know as well.
        below: the commands below it.

    """

    names: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    shared: tuple[Flag, ...] = ()
    below: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        """Its own name."""
        return self.names[0]


@attrs.frozen
class Given:
    """What was given: each flag's values, and the words that are no flags."""

    flags: Mapping[str, tuple[Any, ...]]
    words: tuple[str, ...]

    def last(self, flag: str, default: Any) -> Any:
        """Return a flag's value; the last one given counts."""
        return (self.flags.get(flag) or (default,))[-1]


HELP = Flag("help", "h", "bool")


def find(root: Command, arguments: Sequence[str]) -> tuple[tuple[Command, ...], list[str]]:
    """Return the commands named, from the root down, and the arguments without their names."""
    path, rest, shared = [root], list(arguments), list(root.shared)
    while (place := _first_word(rest, [*path[-1].flags, *shared])) is not None:
        child = next((c for c in path[-1].below if rest[place] in c.names), None)
        if child is None:
            break
        del rest[place]
        path.append(child)
        shared += child.shared
    return tuple(path), rest


def _first_word(arguments: Sequence[str], flags: Iterable[Flag]) -> int | None:
    """Return where the first argument is that is neither a flag nor, by its looks, a value."""
    alone = {f"--{f.name}" for f in flags if f.takes == "bool"}
    alone |= {f"-{f.short}" for f in flags if f.takes == "bool"}
    place = 0
    while place < len(arguments) and arguments[place] != "--":
        text = arguments[place]
        long, short = text.startswith("--"), len(text) == len("-n") and text[0] == "-"
        if text and text[0] != "-":
            return place
        place += 2 if (long or short) and "=" not in text and text not in alone else 1
    return None


def parse(path: Sequence[Command], arguments: Iterable[str]) -> Given:
    """Read what follows a command.

    Raises:
        UsageError: in pflag's words.

    """
    flags = [HELP, *path[-1].flags, *(flag for command in path for flag in command.shared)]
    try:
        return _Reader(deque(arguments), flags).read()
    except UsageError as error:
        hint = " ".join([*(command.name for command in path), "--help"])
        raise UsageError(error.message, hint=hint) from error


def parse_known(arguments: Iterable[str], *flags: Flag) -> Given:
    """Read some flags out of arguments that have others, too, as far as that goes."""
    return _Reader(deque(arguments), flags, lenient=True).read()


@attrs.define
class _Reader:
    """One pass over the arguments."""

    rest: deque[str]
    flags: Sequence[Flag]
    lenient: bool = False
    words: list[str] = attrs.field(factory=list)
    values: dict[str, tuple[Any, ...]] = attrs.field(factory=dict)

    def read(self) -> Given:
        while self.rest:
            text = self.rest.popleft()
            if text == "--":
                self.words += self.rest
                break
            if self.lenient and text in {"--help", "-h"}:
                break
            self._read(text)
        return Given(self.values, tuple(self.words))

    def _read(self, text: str) -> None:
        if not text.startswith("-") or text == "-":
            self.words.append(text)
        elif text.startswith("--"):
            self._long(text)
        else:
            self._short(text[1:])

    def _long(self, text: str) -> None:
        name, equals, value = text[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {text}")
        flag = next((f for f in self.flags if f.name == name), None)
        if flag is None:
            self._unknown(f"flag: --{name}", alone=bool(equals))
        elif equals:
            self._set(flag, value)
        else:
            self._set(flag, self._value(flag, f"--{name}"))

    def _short(self, letters: str) -> None:
        """Read one or several one-letter flags; the last one may have its value behind it."""
        while letters:
            letter, tail = letters[0], letters[1:]
            flag = next((f for f in self.flags if f.short == letter), None)
            equals = len(tail) > 1 and tail[0] == "="
            if flag is None:
                self._unknown(f"shorthand flag: {letter!r} in -{letters}", alone=equals)
                letters = "" if equals else tail
            elif equals:
                return self._set(flag, tail[1:])
            elif flag.takes == "bool":
                self._set(flag, "true")
                letters = tail
            else:
                return self._set(flag, tail or self._value(flag, f"{letter!r} in -{letters}"))
        return None

    def _value(self, flag: Flag, written: str) -> str:
        if flag.takes == "bool":
            return "true"
        if not self.rest:
            raise UsageError(f"flag needs an argument: {written}")
        return self.rest.popleft()

    def _unknown(self, what: str, *, alone: bool) -> None:
        if not self.lenient:
            raise UsageError(f"unknown {what}")
        if not alone and self.rest and not self.rest[0].startswith("-"):
            self.rest.popleft()

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = _CONVERTERS[flag.takes](text)
        except ValueError as error:
            raise UsageError(
                f'invalid argument {quoted(text)} for "{flag}" flag: {error}'
            ) from error
        self.values[flag.name] = (*self.values.get(flag.name, ()), *value)


def quoted(text: str) -> str:
    """Return a text in quotes, as Go's ``%q`` shows it."""
    import json  # noqa: PLC0415 - start-up

    return json.dumps(text, ensure_ascii=False)


def _boolean(text: str) -> tuple[bool]:
    if text not in _TRUE | _FALSE:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return (text in _TRUE,)


def _int32(text: str) -> tuple[int]:
    """Read a number as Go writes it: ``0x1F``, ``0b1``, and ``010`` is eight."""
    try:
        number = int(_OCTAL.sub(r"\g<1>0o", text), 0) if _NUMBER.fullmatch(text) else None
    except ValueError:
        number = None
    if number is None:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    if number not in _INT32:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return (number,)


def _fields(text: str) -> tuple[str, ...]:
    """Read comma-separated values, which may be in quotes."""
    if not text:
        return ()
    if not _FIELDS.fullmatch(text):
        raise ValueError('parse error: bare or extraneous "')
    return tuple(_unquoted(found[1]) for found in _FIELD.finditer(text))


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


_CONVERTERS: Mapping[str, Callable[[str], tuple[Any, ...]]] = {
    "string": lambda text: (text,),
    "strings": lambda text: (text,),
    "list": _fields,
    "int32": _int32,
    "bool": _boolean,
}
