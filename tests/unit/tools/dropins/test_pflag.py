"""Command lines by the rules of cobra and pflag; tests/engine compares them with the real kind."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import UsageError
from imgload.tools.dropins.pflag import Flag, find, parse, switch, to_int32, to_list

SHARED = (Flag("verbosity", "v", to_int32), switch("quiet", "q"))
LEAF = (
    *SHARED,
    Flag("name", "n"),
    Flag("nodes", convert=to_list),
    Flag("cluster", "c", lambda text: [text]),
    switch("keep", "k"),
    switch("help", "h"),
)
COMMANDS = {
    (): SHARED,
    ("branch",): SHARED,
    ("branch", "leaf"): LEAF,
    ("branch", "alias"): LEAF,
}
LINE = st.lists(st.text(st.sampled_from("-=nvqkch,\"'a1 \n"), max_size=6), max_size=6)


def read(*arguments: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    return parse(LEAF, arguments)


def find_command(*arguments: str) -> tuple[str, list[str]]:
    path, rest = find(COMMANDS, arguments)
    return " ".join(path), rest


@pytest.mark.parametrize(
    ("arguments", "name", "rest"),
    [
        ([], "", []),
        (["branch", "leaf", "x"], "branch leaf", ["x"]),
        (["branch", "alias", "x"], "branch alias", ["x"]),
        (["-q", "branch", "-k", "leaf", "x"], "branch", ["-q", "-k", "leaf", "x"]),
        (["-v", "1", "branch", "--quiet", "leaf"], "branch leaf", ["-v", "1", "--quiet"]),
        (["-nx", "branch", "--name=branch", "leaf"], "branch leaf", ["-nx", "--name=branch"]),
        (["-n", "branch", "branch", "leaf"], "branch leaf", ["-n", "branch"]),
        (["branch", "leaf", "leaf"], "branch leaf", ["leaf"]),
        (["branch", "--", "leaf"], "branch", ["--", "leaf"]),
        (["", "branch"], "branch", [""]),
        (["leaf"], "", ["leaf"]),
        (["BRANCH"], "", ["BRANCH"]),
        (["branch leaf"], "", ["branch leaf"]),
        (["--help", "branch", "leaf"], "", ["--help", "branch", "leaf"]),
    ],
)
def test_find_skips_flags_and_their_values(
    arguments: list[str], name: str, rest: list[str]
) -> None:
    """An unknown flag counts as one with a value."""
    assert find_command(*arguments) == (name, rest)


@pytest.mark.parametrize(
    "arguments",
    [["-n", "a"], ["-na"], ["-n=a"], ["--name", "a"], ["--name=a"], ["-qn", "a"], ["-kqna"]],
)
def test_parse_accepts_all_spellings_of_a_value(arguments: list[str]) -> None:
    flags, words = read("x", *arguments, "y")
    assert (flags["name"], words) == ("a", ("x", "y"))


@pytest.mark.parametrize(
    ("arguments", "flag", "value"),
    [
        (["-n", "a", "-n", "b"], "name", "b"),
        (["-n="], "name", "="),
        (["-n", "--"], "name", "--"),
        (["--name", "-q"], "name", "-q"),
        (["--nodes", "a,b", "--nodes=c"], "nodes", ["a", "b", "c"]),
        (["--nodes", ""], "nodes", []),
        (["--nodes", "a,"], "nodes", ["a", ""]),
        (["--nodes", '"a,b",c'], "nodes", ["a,b", "c"]),
        (["--nodes", '"a""b"'], "nodes", ['a"b']),
        (["-c", "a,b", "-cc"], "cluster", ["a,b", "c"]),
        (["-q"], "quiet", True),
        (["-q", "--quiet=F"], "quiet", False),
        (["-q=F", "--quiet=1"], "quiet", True),
        (["-v", "-3"], "verbosity", -3),
        (["-v010"], "verbosity", 8),
        (["-v", "0x1F"], "verbosity", 31),
        (["-v=+0b11"], "verbosity", 3),
        (["-v1_000"], "verbosity", 1000),
        (["-v2147483647"], "verbosity", 2147483647),
    ],
)
def test_parse_converts_values_like_go(arguments: list[str], flag: str, value: object) -> None:
    """Numbers with a base, lists with commas and quotes; a value may look like a flag."""
    assert read(*arguments)[0][flag] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nam", "a"], "unknown flag: --nam"),
        (["--nam=a"], "unknown flag: --nam"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-qxn"], "unknown shorthand flag: 'x' in -xn"),
        (["-q="], "unknown shorthand flag: '=' in -="),
        (["--name"], "flag needs an argument: --name"),
        (["-qn"], "flag needs an argument: 'n' in -n"),
        (["--=a"], "bad flag syntax: --=a"),
        (["---name"], "bad flag syntax: ---name"),
        (["-q=no"], 'invalid argument "no" for "-q, --quiet" flag: '),
        (["-v", "a"], 'invalid argument "a" for "-v, --verbosity" flag: '),
        (["-v", " 1"], 'invalid argument " 1" for "-v, --verbosity" flag: '),
        (["-v", "1__0"], 'invalid argument "1__0" for "-v, --verbosity" flag: strconv'),
        (["-v", "0_"], 'invalid argument "0_" for "-v, --verbosity" flag: strconv'),
        (["-v", "09"], 'invalid argument "09" for "-v, --verbosity" flag: '),
        (["-v", "2147483648"], 'invalid argument "2147483648" for "-v, --verbosity" flag: '),
        (["--nodes", 'a"b'], 'invalid argument "a\\"b" for "--nodes" flag: '),
        (["--nodes", '"a'], 'invalid argument "\\"a" for "--nodes" flag: '),
    ],
)
def test_parse_fails_with_pflags_messages(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(*arguments)
    assert raised.value.message.startswith(message)


def test_parse_treats_all_arguments_after_two_dashes_as_words() -> None:
    assert read("-", "a", "--", "-q", "--")[1] == ("-", "a", "-q", "--")


def is_part(words: Iterable[str], line: Iterable[str]) -> bool:
    """Whether words stand in a line in this order."""
    rest = iter(line)
    return all(word in rest for word in words)


@given(LINE)
def test_parse_raises_no_other_error_and_invents_no_word(line: list[str]) -> None:
    path, rest = find(COMMANDS, line)
    assert len(path) + len(rest) == len(line)
    assert is_part(rest, line)
    with suppress(UsageError):
        assert is_part(read(*line)[1], line)


VALUE = st.text(st.sampled_from("ab-=,"), min_size=1, max_size=3).filter(lambda v: v[0] != "=")
NAMED = VALUE.flatmap(
    lambda v: st.sampled_from([(v, *spelt) for spelt in (["-n", v], [f"-n={v}"], [f"-qn{v}"])])
)
WORD = st.text(st.sampled_from("ab="), max_size=3).map(lambda word: (None, word))


@given(st.lists(st.one_of(NAMED, WORD), max_size=6))
def test_parse_accepts_flags_and_words_in_any_order(pieces: list[tuple[str | None, ...]]) -> None:
    line = [text for piece in pieces for text in piece[1:] if text is not None]
    names = tuple(piece[0] for piece in pieces if piece[0] is not None)
    words = tuple(piece[1] for piece in pieces if piece[0] is None)
    flags, others = read(*line)
    assert (flags.get("name"), others) == (names[-1] if names else None, words)
