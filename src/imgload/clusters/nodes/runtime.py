"""Where containerd is on a node, and how its programs are called there.

k3s has both inside its one program: containerd listens elsewhere and keeps its content and its
configuration elsewhere (k3s, pkg/ctr/main.go and pkg/agent/containerd).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from imgload.core.errors import NodeUnusable

Command = tuple[str, ...]
_USUAL_SOCKET = "/run/containerd/containerd.sock"
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
_SOCKETS = (_K3S_SOCKET, _USUAL_SOCKET)
_WITH_REASON = (
    'exec 3>&1; said=$("$@" 2>&1 >&3 3>&-) && exit; status=$?; printf %s "$said"; exit $status'
)
"""Prints what a program says on stderr when it fails: a batch keeps only stdout."""
_OF_PROCESS = r"""
for process in $(grep -lx containerd /proc/[0-9]*/comm 2>/dev/null); do
    process=${process%/comm}
    [ "$process/ns/mnt" -ef /proc/self/ns/mnt ] || continue
    file=$(tr '\0' '\n' <"$process/cmdline" 2>/dev/null | while read -r word; do
        case $last in -c | -config | --config) echo "$word"; break ;; esac
        case $word in -c=* | -config=* | --config=*) echo "${word#*=}"; break ;; esac
        last=$word
    done)
    case $file in */docker/*) continue ;; esac
    [ -z "$file" ] || exec "$1" --config "$file" config dump
    break
done
exec "$@"
"""
"""Prints the configuration of the containerd that runs, which may have been given another file than
the usual one; not of one that runs in a pod, or that dockerd started for itself."""
_PROGRAMS = ("ctr", "crictl", "k3s")
_LOOK = """
for socket in {sockets}; do if [ -S $socket ]; then echo socket $socket; fi; done
for name in {programs}; do if command -v $name >/dev/null; then echo program $name; fi; done
"""


@attrs.frozen
class Runtime:
    """A node's containerd.

    Args:
        programs: what to call in place of a program's usual name.
        config: the command that prints containerd's configuration.
        root: the folder of its content.
        socket: where it listens. crictl is given it, whatever /etc/crictl.yaml names: only the
            CRI of this containerd can say whether this containerd's images are known.

    """

    programs: Mapping[str, Command] = attrs.field(factory=dict, hash=False)
    config: Command = ("containerd", "config", "dump")
    root: str = "/var/lib/containerd"
    socket: str = _USUAL_SOCKET

    def spelled(self, command: Sequence[str]) -> Command:
        """Return a command as this node has it."""
        program, *arguments = command
        words = self.programs.get(program, (program,))
        if program == "crictl":
            endpoint = f"unix://{self.socket}"
            words = ("sh", "-c", _WITH_REASON, program, *words, "-r", endpoint, "-i", endpoint)
        return (*words, *arguments)

    @property
    def dump(self) -> Command:
        """The command that prints the configuration with which containerd runs."""
        is_file = self.config[0] != "containerd"
        return self.config if is_file else ("sh", "-c", _OF_PROCESS, "imgload", *self.config)

    @property
    def start(self) -> Command:
        """The command that prints something else after each start of containerd."""
        return ("stat", "-c", "%i %z", self.socket)


CONTAINERD = Runtime()
K3S = Runtime(
    programs={"ctr": ("ctr", "--address", _K3S_SOCKET)},
    config=("cat", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    root="/var/lib/rancher/k3s/agent/containerd",
    socket=_K3S_SOCKET,
)


def look_command() -> Command:
    """Return the command that says which containerd a container runs."""
    look = _LOOK.format(sockets=" ".join(_SOCKETS), programs=" ".join(_PROGRAMS))
    return ("sh", "-c", look)


def parse_look(text: str) -> Runtime:
    """Understand what `look_command` printed.

    Raises:
        NodeUnusable: when no containerd is there, or nothing to speak to it with.

    """
    there = set(text.splitlines())
    if not any(f"socket {socket}" in there for socket in _SOCKETS):
        raise NodeUnusable(
            f"no containerd runs there: there is no {' and no '.join(_SOCKETS)}",
            hint="name a container that is a node: see imgload clusters",
        )
    found = K3S if f"socket {_K3S_SOCKET}" in there else CONTAINERD
    absent = [name for name in ("ctr", "crictl") if f"program {name}" not in there]
    if "program k3s" in there:
        inside = {name: ("k3s", name) for name in absent}
        return attrs.evolve(found, programs={**found.programs, **inside})
    if "ctr" in absent:
        raise NodeUnusable(
            "containerd runs there, and there is no ctr to speak to it with",
            hint="put containerd's ctr on the PATH there: its own release has it",
        )
    return found
