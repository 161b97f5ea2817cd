"""Untrusted YAML documents."""

from __future__ import annotations

from typing import Any

import pytest

from imgload.core.yaml import MAX_DEPTH, MAX_VALUES, Mapping, read_documents


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("", []),
        (
            "a: 1.10\nb: yes\nc: ~\nd: '~'\ne:\n",
            [{"a": "1.10", "b": "yes", "c": None, "d": "~", "e": None}],
        ),
        ("- 1\n---\n{x: [y, {}]}\n", [["1"], {"x": ["y", {}]}]),
        ('{\n\t"a": [\n\t\t"b\\/c"]}', [{"a": ["b/c"]}]),
        ("a: &x [1]\nb: *x\n", [{"a": ["1"], "b": ["1"]}]),
        ("a: !!python/object:os.system [x]", [{"a": ["x"]}]),
    ],
)
def test_scalars_are_read_as_written(text: str, documents: list[Any]) -> None:
    """A tag would be another version as a number; JSON is YAML, too."""
    assert list(read_documents(text.encode())) == documents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a:\n\t- b", "line 2: found character"),
        ("a: 1\na: 2", "line 2: 'a' is set twice"),
        ("? [x]\n: y", "line 1: a key is not a string"),
        ("a: *nope", "line 1: no anchor 'nope'"),
        ("a: &x 1\n---\n*x", "line 3: no anchor 'x'"),
        ("[" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels"),
        ("[" * 100_000, "nest"),
        ("[" + ",".join("a" * (MAX_VALUES + 1)) + "]", f"more than {MAX_VALUES} values"),
        ("\x07", "control characters"),
        ("\x7fELF", "control characters"),
    ],
)
def test_a_document_that_is_not_valid_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_documents(text.encode()))
    with pytest.raises(ValueError, match="codec"):
        list(read_documents(b"\xff\xfe"))


def test_aliases_share_their_value() -> None:
    """A copy of each would take gigabytes."""
    lines = [
        "a0: &a0 [x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)),
    ]
    [document] = read_documents("\n".join(lines).encode())
    assert document["a29"][0] is document["a28"]
    [loop] = read_documents(b"&a [*a]")
    assert loop[0] is loop


def test_mappings_have_their_lines() -> None:
    [[first, second]] = read_documents(b"- {a: b}\n\n- c: d\n  e: f\n")
    assert isinstance(first, Mapping)
    assert (first.line, second.line) == (1, 3)
