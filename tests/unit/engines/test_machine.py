"""Commands on a machine, by an ssh in whose place a program runs them on this one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed, EngineNotPermitted, EngineUnreachable, UsageError
from imgload.engines.base import Container, OpenInput
from imgload.engines.machine import SshMachine, parse_machine
from imgload.engines.ssh import Login
from tests.unit.bounds import within

SSH = """\
import os, sys
words, options = sys.argv[1:], {}
options = dict(word[2:].split("=", 1) for word in words if word.startswith("-o"))
assert words[-3:-1] == ["--", "host"], words
assert options["BatchMode"] == "yes"
if options["ControlMaster"] == "yes":
    open(options["ControlPath"], "w").close()
    with open(os.environ["LOGINS"], "a") as log:
        log.write("login\\n")
os.execvp("sh", ["sh", "-c", words[-1]])
"""
"""An ssh without a network: it runs the command for the login shell."""
WAIT, PAUSE = "import sys; sys.stdin.read()", "import time; time.sleep(0.3)"
DENY = "import os; os.write(2, b'sudo: a password is required\\n')"
ODD_WORDS = ["a b", "", "'", '"', "$HOME", "`id`", "\\", "\n", "!x", "-n", "*", "é", "\\n"]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a program in ssh's place."""

    def put(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin/ssh").write_text(f"#!{sys.executable}\n{script}\n")
        (tmp_path / "bin/ssh").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOGINS", str(tmp_path / "logins"))
    return put


@pytest.fixture
def machine(program: Callable[[str], None]) -> Iterator[SshMachine]:
    """Return a machine at which the user is root, by a command that claims it."""
    program(SSH.replace("words[-1]]", 'words[-1].replace("$(id -u)", "0")]'))
    machine = parse_machine("ssh://me@host")
    yield machine
    machine.close()


def new_machine() -> SshMachine:
    """Return a machine without a connection of an earlier test."""
    return SshMachine(Login("host", "me"), Container("", "host", "running", {}))


@pytest.mark.parametrize("stdin", [None, [b"x" * 300_000, b"y"]])
def test_exec_passes_every_word_and_the_whole_input(
    machine: SshMachine, stdin: list[bytes] | None
) -> None:
    """The remote command is one text for a login shell."""
    count = ["sh", "-c", 'wc -c; printf "%s\\0" "$@"', "imgload", *ODD_WORDS]
    if stdin is None:
        count[2] = 'echo 0; printf "%s\\0" "$@"'
    result = machine.exec(machine.node.id, count, stdin)
    size, _, words = result.stdout.partition(b"\n")
    assert int(size) == sum(map(len, stdin or ()))
    assert words.decode().split("\0")[:-1] == ODD_WORDS
    assert (result.exit_status, result.complete) == (0, True)


def test_all_commands_share_one_connection(machine: SshMachine, tmp_path: Path) -> None:
    """Also those after a new look-up of the same address."""
    for _ in range(3):
        again = parse_machine("ssh://me@host")
        assert again.exec("", ["true"]).exit_status == 0
    assert again is machine
    assert (tmp_path / "logins").read_text() == "login\n"


def test_an_ended_connection_is_made_again(machine: SshMachine, tmp_path: Path) -> None:
    """As after a network change."""
    machine.exec("", ["true"])
    machine.close()
    machine.exec("", ["true"])
    assert (tmp_path / "logins").read_text() == "login\n" * 2


def test_a_greeting_of_the_login_shell_is_no_output(
    program: Callable[[str], None],
) -> None:
    """Some print one also without a terminal, from ~/.bashrc."""
    script = SSH.replace("words[-1]]", 'words[-1].replace("$(id -u)", "0")]')
    program(script.replace("os.execvp", 'print("Welcome!", flush=True)\nos.execvp'))
    assert new_machine().exec("", ["echo", "out"]).stdout == b"out\n"


def test_an_unused_machine_ends_its_connection(machine: SshMachine) -> None:
    """When nothing refers to the machine any more."""
    before = children()
    other = SshMachine(machine.login, machine.node)
    other.exec("", ["true"])
    assert children() - before
    del other
    gc.collect()
    assert children() == before


def children() -> set[str]:
    """Return the processes that this process started."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_command_longer_than_an_argument_is_sent_as_input(machine: SshMachine) -> None:
    """Linux takes 128 KiB for the login shell's argument."""
    words = ["x" * 100_000] * 5
    result = machine.exec("", ["sh", "-c", 'echo $#; cat | wc -c; printf %s "$5"', "", *words])
    assert result.stdout == b"5\n0\n" + words[-1].encode()
    with pytest.raises(EngineFailed, match="too long"):
        machine.exec("", ["cat", *words], [b"input"])


@pytest.mark.parametrize(("status", "reported"), [(0, 0), (7, 7), (127, 127), (255, 254)])
def test_the_status_of_a_command_is_never_that_of_ssh(
    machine: SshMachine, status: int, reported: int
) -> None:
    """255 means that ssh failed."""
    result = machine.exec("", ["sh", "-c", f"echo why >&2; exit {status}"])
    assert (result.exit_status, result.stderr) == (reported, b"why\n")


def test_a_command_that_ends_early_has_not_got_all_of_its_input(machine: SshMachine) -> None:
    """Its status is reported; success is not believed."""
    endless = iter(lambda: b"x" * (1 << 20), b"")
    with within(20):
        result = machine.exec("", ["sh", "-c", "echo full >&2; exit 3"], endless)
    assert (result.exit_status, result.complete, result.stderr) == (3, False, b"full\n")
    with within(20), pytest.raises(EngineFailed, match="before all was sent"):
        machine.exec("", ["true"], iter(lambda: b"x" * (1 << 20), b""))


def test_the_input_stays_open_after_an_open_input(machine: SshMachine) -> None:
    """Commands that end with their input would end too early."""
    script = "exec 3<&0; cat <&3 & sleep 0.3; kill -0 $! && echo open; kill $!"
    result = machine.exec("", ["sh", "-c", script], OpenInput([b"x"], is_tar=False))
    assert result.stdout == b"xopen\n"


def test_errors_keep_their_end_and_output_is_bounded(machine: SshMachine) -> None:
    """A machine may print anything."""
    script = "yes error | head -c 1000000 >&2; echo last >&2"
    result = machine.exec("", ["sh", "-c", script])
    assert result.stderr.endswith(b"last\n")
    assert len(result.stderr) <= 192 << 10
    with within(30), pytest.raises(EngineFailed, match="printed more than"):
        machine.exec("", ["sh", "-c", "yes"])


def test_a_broken_connection_is_no_status_of_the_command(
    program: Callable[[str], None],
) -> None:
    """ssh's own words are quoted."""
    script = SSH.replace("words[-1]]", 'words[-1].replace("$(id -u)", "0")]')
    lost = 'if options["ControlMaster"] == "no":\n    os.write(2, b"lost\\n"); sys.exit(255)\n'
    program(script.replace("os.execvp", f"{lost}os.execvp"))
    with pytest.raises(EngineFailed, match="connection to me@host broke: lost") as caught:
        new_machine().exec("", ["true"])
    assert caught.value.hint == "check it: ssh me@host true"


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("import sys; sys.exit('no route to host')", EngineUnreachable, "no route to host"),
        ("pass", EngineUnreachable, "it did not answer"),
        (f"print('imgload: root', flush=True); {WAIT}", EngineUnreachable, "it did not answer"),
        (f"print('imgload: shell', flush=True); {WAIT}", EngineUnreachable, "as fish does"),
        (
            f"print('Welcome'); print('imgload: denied', flush=True); {PAUSE}; {DENY}; {WAIT}",
            EngineNotPermitted,
            "cannot become root: sudo: a password is required",
        ),
    ],
)
def test_a_login_that_cannot_be_used_is_explained(
    program: Callable[[str], None], script: str, kind: type[Exception], words: str
) -> None:
    """With a hint that names a command."""
    program(script)
    with within(15), pytest.raises(kind, match=words) as caught:
        new_machine().exec("", ["true"])
    hint = vars(caught.value)["hint"]
    assert "ssh me@host" in hint or "/etc/sudoers.d/imgload" in hint


def test_a_user_who_is_not_root_runs_commands_with_sudo(
    program: Callable[[str], None], tmp_path: Path
) -> None:
    """It is asked once, and never for a password."""
    (tmp_path / "bin").mkdir()
    note = f"case $1 in -n) echo noted >>{tmp_path}/sudo;; esac"
    run = 'shift; [ "$1" != -- ] || shift; exec "$@"'
    (tmp_path / "bin/sudo").write_text(f"#!/bin/sh\n{note}\n{run}\n")
    (tmp_path / "bin/sudo").chmod(0o755)
    program(SSH.replace("words[-1]]", 'words[-1].replace("$(id -u)", "7")]'))
    print_words = ["sh", "-c", 'printf "%s\\0" "$@"', "imgload", *ODD_WORDS]
    result = new_machine().exec("", print_words)
    assert result.stdout.decode().split("\0")[:-1] == ODD_WORDS
    assert (tmp_path / "sudo").read_text() == "noted\n" * 2


@pytest.mark.parametrize(
    "url",
    [
        *("ssh://", "ssh://-oProxyCommand=x", "ssh://-l@host", "ssh://me;x@host", "ssh://$(x)"),
        *("ssh://me:secret@host", "ssh://host/run/docker.sock", "ssh://host?x", "ssh://host#x"),
        *("ssh://host:port", "ssh://host:99999", "tcp://host", "ssh://ho st"),
    ],
)
def test_an_address_that_ssh_could_misread_is_refused(url: str) -> None:
    """Nothing of it may become an option of ssh, or text for a shell."""
    with pytest.raises(UsageError, match="is not the address of a machine") as caught:
        parse_machine(url)
    assert "ssh://user@host" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["ssh://host", "ssh://me@host", "ssh://me@host:22", "ssh://me@[::1]:22"]
)
def test_the_name_of_a_machine_is_its_address(url: str) -> None:
    """It selects the node again, in hints and in later runs."""
    machine = parse_machine(url)
    assert machine.node.name == machine.endpoint.url == url
    assert not machine.endpoint.local
    assert machine.container(url) == machine.container(machine.node.id) == machine.node
    assert machine.container("other") is None
    assert machine.node.id != parse_machine("ssh://other").node.id
    assert len(machine.node.id) == 64


def test_containers_has_the_machine_if_the_label_matches() -> None:
    """As a container engine lists containers."""
    node = Container("", "vm", "running", {"tool": "colima"})
    machine = SshMachine.of(Login("host"), node)
    for label, matches in {"tool": True, "tool=colima": True, "tool=x": False, "x": False}.items():
        assert bool(machine.containers(label)) is matches


@pytest.mark.parametrize(
    ("login", "argv", "line"),
    [
        (Login("h"), ["df", "-i", "/var"], "ssh h sudo df -i /var"),
        (Login("h", "root", 22), ["crictl", "info"], "ssh -p 22 root@h crictl info"),
        (Login("h", config="/a b/ssh.config"), ["id"], "ssh -F '/a b/ssh.config' h sudo id"),
        (Login("h", identity="/k"), [], "ssh -i /k h sudo"),
    ],
)
def test_exec_command_is_a_line_for_a_terminal(login: Login, argv: list[str], line: str) -> None:
    """In hints, in place of ``docker exec``."""
    machine = SshMachine(login, Container("", "h", "running", {}))
    assert machine.exec_command("h", *argv) == line


def test_exec_command_quotes_a_script_for_both_shells(tmp_path: Path) -> None:
    """ssh joins its words, and the login shell splits them again."""
    machine = SshMachine(Login("h", "root"), Container("", "h", "running", {}))
    line = machine.exec_command("h", "sh", "-c", "echo $0 | tr a b", "a a")
    (tmp_path / "ssh").write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    (tmp_path / "ssh").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(["sh", "-c", line], capture_output=True, env=environ, check=True)
    assert run.stdout == b"b b\n"
