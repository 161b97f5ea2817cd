"""Addresses of sockets on other machines, and ssh's own words about them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imgload.core.errors import EngineUnreachable, UsageError
from imgload.engines.discovery.candidates import Candidate
from imgload.engines.discovery.probe import probe
from imgload.engines.ssh import Login, Remote
from tests.unit.bounds import within


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("ssh://host", Remote(Login("host"), "/var/run/docker.sock")),
        ("ssh://host/", Remote(Login("host"), "/var/run/docker.sock")),
        ("ssh://me@host:2222", Remote(Login("host", "me", 2222), "/var/run/docker.sock")),
        (
            "ssh://core@127.0.0.1:52837/run/user/501/podman/podman.sock",
            Remote(Login("127.0.0.1", "core", 52837), "/run/user/501/podman/podman.sock"),
        ),
        ("ssh://[::1]:22/x.sock", Remote(Login("::1", None, 22), "/x.sock")),
    ],
)
def test_remote_parses_addresses_of_docker_and_podman(url: str, remote: Remote) -> None:
    """The socket's path may be left out, as docker does it."""
    assert Remote.parse(url, "docker") == remote


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh:///run/x.sock",
        "ssh://-oProxyCommand=x/",
        "ssh://-l@host",
        "ssh://me:password@host",
        "ssh://host/x.sock?query",
        "ssh://host/x.sock#fragment",
        "ssh://host/$(reboot)",
        "ssh://host/a b",
        "ssh://host/a'b",
        "ssh://host/a:b",
        "ssh://host/%d",
        "ssh://host/a\\b",
        "ssh://ho$(x)st",
        "ssh://me;x@host",
        "ssh://host:port",
        "ssh://host:99999",
    ],
)
def test_remote_rejects_text_that_a_shell_or_ssh_could_misinterpret(url: str) -> None:
    """Addresses come out of files, and into the arguments of a program."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever says so
        Remote.parse(url, "docker")
    with pytest.raises(UsageError):
        probe(Candidate("docker", url, "test"))


def test_argv_has_options_first_and_batch_mode() -> None:
    """The user's own ssh decides on keys and hosts."""
    argv = Remote(Login("host", "me", 22, "/k/key"), "/x.sock").argv(Path("/t/engine.sock"))
    assert argv[0] == "ssh"
    assert argv[-3:-1] == ["--", "host"]
    assert "-oBatchMode=yes" in argv
    assert argv[argv.index("-L") + 1] == "/t/engine.sock:/x.sock"
    assert argv[argv.index("-i") + 1] == "/k/key"
    assert not [word for word in argv if "StrictHostKeyChecking" in word]


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("127.0.0.1", True), ("192.168.39.7", True), ("8.8.8.8", False), ("far.example", False)],
)
def test_argv_skips_host_keys_for_local_podman_machines_only(host: str, trusted: bool) -> None:  # noqa: FBT001
    """Podman recreates its host key with it; any other host must have a known key."""
    argv = Remote(Login(host, is_vm=True), "/x.sock").argv(Path("/t"))
    assert ("-oStrictHostKeyChecking=no" in argv) is trusted


def test_argv_quotes_the_remote_command(tmp_path: Path) -> None:
    """Quoted whole: a remote shell may be no sh."""
    command = Remote(Login("host"), str(tmp_path / "x.sock")).argv(Path("/t"))[-1]
    assert shlex.split(command)[:2] == ["sh", "-c"]
    run = subprocess.run(shlex.split(command), input=b"", capture_output=True, check=True)
    assert run.stdout == b"imgload: absent\n"


def with_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of our own in ssh's place."""
    (folder / "ssh").write_text(f"#!{sys.executable}\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('ssh: no route to host')", "no route to host"),
        ("pass", "it did not answer"),
        (
            "print('Welcome to this machine'); print('imgload: absent', flush=True)",
            "does not exist",
        ),
        ("import sys; print('imgload: ready', flush=True); sys.stdin.read()", "it did not answer"),
        ("print('x' * 100_000, flush=True)", "it did not answer"),
        ("import sys; sys.stderr.write('\\x1b[31mred\\n' * 9999); sys.exit(1)", "red"),
    ],
)
def test_a_failing_ssh_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """Its last line; what a machine greets with is passed over."""
    with_ssh(tmp_path, script, monkeypatch)
    with within(10), pytest.raises(EngineUnreachable, match=said) as caught:
        probe(Candidate("docker", "ssh://me@host", "DOCKER_HOST"))
    assert "DOCKER_HOST" in caught.value.message
    assert "ssh me@host" in caught.value.hint
    assert "\x1b" not in caught.value.message


def test_a_missing_ssh_client_has_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable, match="ssh cannot be run") as caught:
        probe(Candidate("docker", "ssh://me@host", "DOCKER_HOST"))
    assert "install an ssh client" in caught.value.hint
