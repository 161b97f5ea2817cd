"""The log of ``--verbose``."""

import re
import secrets

import pytest

from imgload.core import trace


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Enable the log, and return its lines."""
    written: list[str] = []
    monkeypatch.setattr(trace, "_write", None)
    monkeypatch.setattr(trace, "_start", 0.0)
    trace.enable(written.append)
    return written


def test_a_line_has_the_time_and_its_duration(lines: list[str]) -> None:
    trace.log("transport: pull")
    trace.log("GET /images", since=trace._start)  # noqa: SLF001
    assert re.fullmatch(r"\[ +\d+\.\d{3}\] transport: pull", lines[0])
    assert re.fullmatch(r"\[ +\d+\.\d{3}\] GET /images \(\d+ ms\)", lines[1])


def test_nothing_is_logged_by_default() -> None:
    assert not trace.enabled()
    trace.log("nowhere")


def test_secret_paths_and_passwords_are_not_logged(lines: list[str]) -> None:
    """Not even a part of them, wherever a word is cut."""
    secret = secrets.token_hex(16)
    for padding in range(100):
        url = f"{'x' * padding}http://10.0.0.1:5000/v2/{secret}"
        command = ["sh", "-c", "script", "imgload", url, f"{url} {url}", *["y" * padding] * 9]
        trace.log(f"node: {trace.command_text(command)}")
    trace.log(f"PUT /v2/imgload/{secret}/blobs, tcp://me:pass word@host, https://me:hunter2@host")
    text = "\n".join(lines)
    assert not any(secret[i : i + 6] in text for i in range(27))
    assert "hunter2" not in text
    assert "https://me:***@host" in text


def test_digests_and_scripts_are_shortened(lines: list[str]) -> None:
    digest = secrets.token_hex(32)
    trace.log(f"GET /images/sha256:{digest}")
    assert digest[:12] + "…" in lines[0]
    assert digest not in lines[0]
    command = ("sh", "-c", "work", "imgload", "ctr", "version", "a\nb")
    assert trace.command_text(command) == "ctr version '(script)'"
    assert trace.command_text(("ctr", "x" * 1000)) == f"ctr '{'x' * 80}…'"


def test_a_line_has_no_control_characters(lines: list[str]) -> None:
    trace.log("evil\x1b[2J\nsecond")
    assert "\x1b" not in lines[0]
    assert "\n" not in lines[0]
