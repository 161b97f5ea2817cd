"""Several commands in one shell, run by this machine's sh."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.batch import Output, batch_argv, in_parts, parse_batch


def run(*commands: list[str]) -> list[Output]:
    argv, marker = batch_argv(commands)
    done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return parse_batch(done.stdout, marker, len(commands))


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "&& touch pwned",
    "| touch pwned",
    "> pwned",
    "a\ntouch pwned\n",
    "'\"'\"",
    '"; touch pwned; "',
    "${1}",
    "$1",
    "$@",
    "\\",
    "%s %d\\n",
    "*",
    "~",
    "-n",
    "--help",
    "",
    " ",
    "é\N{SNOWMAN}",
    "#x",
    "!x",
]


@pytest.mark.parametrize("argument", HOSTILE)
def test_an_argument_never_becomes_shell_text(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image names come from the user, node names from labels."""
    monkeypatch.chdir(tmp_path)
    [before, output, after] = run(
        ["printf", "%s", "before"], ["printf", "[%s]", argument], ["printf", "%s", "after"]
    )
    assert output == Output(0, f"[{argument}]".encode())
    assert (before.text, after.text) == ("before", "after")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=12))
def test_batch_passes_arguments_unchanged(arguments: list[str]) -> None:
    """Also beyond nine, where $10 would be $1 and a zero."""
    [output] = run(["printf", "<%s>", *arguments])
    expected = "".join(f"<{a}>" for a in arguments) or "<>"
    assert output == Output(0, expected.encode())


@pytest.mark.parametrize("status", [0, 1, 2, 42, 126, 255])
def test_each_command_has_its_own_exit_status(status: int) -> None:
    """A command that fails does not stop the others."""
    outputs = run(["sh", "-c", f"exit {status}"], ["true"], ["false"])
    assert [o.exit_status for o in outputs] == [status, 0, 1]


def test_a_missing_command_has_exit_status_127() -> None:
    """Such as crictl on some nodes."""
    [missing, present] = run(["imgload-no-such-program", "x"], ["echo", "y"])
    assert missing == Output(127, b"")
    assert present == Output(0, b"y\n")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "\n\n", "no newline", "newline\n", "\nbefore", "a\n0\nb\n", "imgload 0\n"],
)
def test_output_is_unchanged(text: str) -> None:
    """Whether it ends with a newline or not."""
    first, second = run(["printf", "%s", text], ["printf", "%s", text])
    assert first.stdout == second.stdout == text.encode()


def test_output_that_looks_like_a_marker_is_output() -> None:
    """It has another run's marker, since this run's cannot be guessed."""
    _, marker = batch_argv([["true"]])
    fake = f"\n{marker} 0\n\n{'0' * 32} 0\n"
    [output, following] = run(["printf", "%s", fake], ["echo", "x"])
    assert output == Output(0, fake.encode())
    assert following == Output(0, b"x\n")


def test_binary_output_is_unchanged() -> None:
    """Blobs are read this way; `text` replaces bytes that are not UTF-8."""
    [output] = run(["printf", r"\377\376x"])
    assert output.stdout == b"\xff\xfex"
    assert output.text == "\N{REPLACEMENT CHARACTER}" * 2 + "x"


def test_an_interrupted_shell_gives_fewer_outputs() -> None:
    """The caller counts them."""
    argv, marker = batch_argv([["echo", "one"], ["echo", "two"]])
    whole = subprocess.run(argv, capture_output=True, check=True).stdout
    assert parse_batch(whole, marker, 2) == [Output(0, b"one\n"), Output(0, b"two\n")]
    for length in range(len(whole)):
        outputs = parse_batch(whole[:length], marker, 2)
        assert len(outputs) < 2
        assert all(o == Output(0, b"one\n") for o in outputs)


def test_no_marker_is_used_twice() -> None:
    """The output of one run cannot be replayed in the next."""
    assert len({batch_argv([["true"]])[1] for _ in range(50)}) == 50


def test_groups_run_in_parallel(tmp_path: Path) -> None:
    """Each waits for the other, and the outputs are in the order of the commands."""
    fifos = [str(tmp_path / name) for name in "ab"]
    for fifo in fifos:
        os.mkfifo(fifo)
    swap = 'echo "$1" > "$2" & cat "$3"; wait'
    meet = [
        ["sh", "-c", swap, "x", mine, *pair]
        for mine, pair in zip("12", (fifos, fifos[::-1]), strict=True)
    ]
    large = ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]
    argv, marker = batch_argv([meet[0], ["false"]], [], [large], [meet[1], ["printf", r"\0\n\n"]])
    done = subprocess.run(
        argv, capture_output=True, check=True, timeout=20, stdin=subprocess.DEVNULL
    )
    outputs = parse_batch(done.stdout, marker, 5)
    assert [o.exit_status for o in outputs] == [0, 1, 0, 0, 0]
    assert [outputs[i].stdout for i in (0, 1, 3, 4)] == [b"2\n", b"", b"1\n", b"\0\n\n"]
    assert outputs[2].stdout == b"x" * 300_000


def test_only_the_first_command_reads_the_input() -> None:
    """It is an import that reads an archive."""
    argv, marker = batch_argv([["cat"]], [["printf", "b"]], before=[["head", "-c", "3"]])
    done = subprocess.run(argv, capture_output=True, check=True, input=b"abc")
    assert [o.text for o in parse_batch(done.stdout, marker, 3)] == ["abc", "", "b"]


@pytest.mark.parametrize("status", [1, 2, 127])
def test_commands_after_a_failed_import_do_not_run(status: int) -> None:
    """The shell exits with its status: 0 would look like a broken connection."""
    fail = ["sh", "-c", f"exit {status}"]
    argv, marker = batch_argv([["printf", "b"]], [["printf", "c"]], before=[fail])
    done = subprocess.run(argv, capture_output=True, check=False, input=b"abc")
    assert done.returncode == status
    assert parse_batch(done.stdout, marker, 3) == [Output(status, b"")]


def test_an_interrupted_group_is_not_mistaken_for_the_next() -> None:
    """Outputs are numbered."""
    argv, marker = batch_argv([["echo", "one"], ["sh", "-c", "kill -9 $PPID"]], [["echo", "two"]])
    done = subprocess.run(argv, capture_output=True, check=False)
    assert len(parse_batch(done.stdout, marker, 3)) < 3


@given(st.binary(), st.integers(0, 5))
def test_parse_batch_accepts_any_output(data: bytes, count: int) -> None:
    """Without markers there are no outputs."""
    assert parse_batch(data, "f" * 32, count) == []


@pytest.mark.parametrize(("words", "count"), [(["x" * 60], 3000), (["y" * 60_000] * 2, 30)])
def test_commands_too_large_for_one_exec_take_several(words: list[str], count: int) -> None:
    """Linux allows 128 KiB for one argument and 2 MiB for all: a thousand images need more."""
    commands = [["printf", f"%.5s{number}", *words] for number in range(count)]
    found: list[str] = []
    for part in in_parts([commands[:10], commands[10:]]):
        argv, marker = batch_argv(*part)
        done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        found += [o.text for o in parse_batch(done.stdout, marker, sum(map(len, part)))]
    assert [text[5 : 5 + len(str(n))] for n, text in enumerate(found)] == [
        str(n) for n in range(count)
    ]


def test_commands_that_fit_take_one_exec() -> None:
    """An exec costs more than most commands; no commands take none."""
    groups = [[["true"]] * 3, [], [["echo", "x"]]]
    assert list(in_parts(groups)) == [groups]
    assert list(in_parts([[], []])) == []
