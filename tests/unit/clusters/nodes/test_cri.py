"""Recorded and damaged output of crictl."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.cri import CriAnswer, inspect_image, parse_inspect
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest
from tests.unit.recordings import VERSIONS, inspected, recorded

ID = "sha256:a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4"


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_parse_inspect_reads_the_image_id(version: str) -> None:
    """status.id is the config's digest."""
    answer = parse_inspect(Output(0, recorded(version, "inspect")))
    assert answer == CriAnswer(Digest.parse(ID))
    assert inspected(version)["status"]["id"] == ID


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_name_is_a_denial(version: str) -> None:
    """crictl exits with 1 and reports it on stderr."""
    assert b"no such image" in recorded(version, "absent")
    assert parse_inspect(Output(1, b"")) == CriAnswer(None)


@pytest.mark.parametrize("status", [126, 127])
def test_a_node_without_crictl_gives_no_answer(status: int) -> None:
    """`cri` is null then, and never true."""
    assert parse_inspect(Output(status, b"")) is None


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        encode({"status": None}),
        encode({"status": "x"}),
        encode({"status": []}),
        encode({"status": {}}),
        encode({"status": {"id": None}}),
        encode({"status": {"id": "sha256:short"}}),
        encode({"status": {"id": 5}}),
        b"[" * 100_000,
        b'{"status":' * 100_000,
        b'{"status": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_an_invalid_answer_is_a_failure(stdout: bytes) -> None:
    """Neither a denial nor a crash."""
    answer = parse_inspect(Output(0, stdout))
    assert answer
    assert answer.image_id is None
    assert answer.failure


@given(st.data())
def test_a_damaged_answer_has_an_id_or_none(data: st.DataObject) -> None:
    """Cut anywhere, junk anywhere: the right ID, none, or another digest."""
    raw = recorded("2.1", "inspect")
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    answer = parse_inspect(Output(0, raw[:start] + data.draw(st.binary(max_size=9)) + raw[end:]))
    assert answer is not None
    assert answer.image_id is None or isinstance(answer.image_id, Digest)


@given(st.integers(0, 255), st.binary())
def test_parse_inspect_accepts_any_output(status: int, stdout: bytes) -> None:
    """Without an exception."""
    answer = parse_inspect(Output(status, stdout))
    assert (answer is None) is (status in {126, 127})


def test_the_name_is_one_argument() -> None:
    """Even with a space in it."""
    assert inspect_image("app v1")[-1] == "app v1"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_denial_is_not_a_failure(version: str) -> None:
    """With crictl's stderr."""
    assert parse_inspect(Output(1, recorded(version, "absent"))) == CriAnswer(None)


def test_a_crictl_that_does_not_connect_is_an_error() -> None:
    """It has the reason, and is no statement about the image."""
    said = (
        b'time="2026-11-29T03:00:00Z" level=fatal msg="validate service connection: validate CRI v1'
        b' image API for endpoint \\"unix:///run/x.sock\\": rpc error: code = Unavailable"\n'
    )
    with pytest.raises(NodeUnusable, match="validate service connection"):
        parse_inspect(Output(1, said))
    failed = parse_inspect(Output(1, b"rpc error: not initialized"))
    assert failed == CriAnswer(None, "rpc error: not initialized")
