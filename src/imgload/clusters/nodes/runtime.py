"""Where containerd is on a node, and how its programs are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from imgload.core.errors import NodeUnusable

Command = tuple[str, ...]
_USUAL_SOCKET = "/run/containerd/containerd.sock"
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
_WITH_REASON = (
    'exec 3>&1; said=$("$@" 2>&1 >&3 3>&-) && exit; status=$?; printf %s "$said"; exit $status'
)
"""Prints the stderr of a program that fails: a batch keeps only stdout."""
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
_LOOK = f"""
for socket in {_K3S_SOCKET} {_USUAL_SOCKET}; do
    if [ -S $socket ]; then echo socket $socket; fi
done
for name in ctr crictl k3s; do if command -v $name >/dev/null; then echo program $name; fi; done
"""
LOOK = ("sh", "-c", _LOOK)
"""The command that lists the containerd sockets and programs in a container."""


@attrs.frozen
class Containerd:
    """Where containerd is on a node.

    Args:
        programs: the command lines of programs, where they are not just their names.
        config: the command that prints containerd's configuration.
        root: the folder of its content.
        socket: where it listens. crictl connects to it as well, whatever /etc/crictl.yaml names:
            only the CRI of this containerd can report whether it knows this containerd's images.

    """

    programs: Mapping[str, Command] = attrs.field(factory=dict, hash=False)
    config: Command = ("containerd", "config", "dump")
    root: str = "/var/lib/containerd"
    socket: str = _USUAL_SOCKET

    def resolve_command(self, command: Sequence[str]) -> Command:
        """Return the command line of a command on this node."""
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
        """The command whose output changes with each start of containerd."""
        return ("stat", "-c", "%i %z", self.socket)

    @property
    def free(self) -> Command:
        """The command that prints the free space of the content's file system."""
        return ("df", "-Pk", self.root)


CONTAINERD = Containerd()
K3S = Containerd(
    programs={"ctr": ("ctr", "--address", _K3S_SOCKET)},
    config=("cat", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    root="/var/lib/rancher/k3s/agent/containerd",
    socket=_K3S_SOCKET,
)
"""k3s contains containerd and its programs (k3s, pkg/ctr/main.go and pkg/agent/containerd)."""


def parse_look(text: str) -> Containerd:
    """Parse the output of `LOOK`.

    Raises:
        NodeUnusable: when there is no containerd, or no program to control it.

    """
    lines = set(text.splitlines())
    if not lines & {f"socket {_K3S_SOCKET}", f"socket {_USUAL_SOCKET}"}:
        raise NodeUnusable(
            f"no containerd runs there: no {_K3S_SOCKET} and no {_USUAL_SOCKET}",
            hint="name a container that is a node: see imgload clusters",
        )
    runtime = K3S if f"socket {_K3S_SOCKET}" in lines else CONTAINERD
    missing = [name for name in ("ctr", "crictl") if f"program {name}" not in lines]
    if "program k3s" in lines:
        programs = {**runtime.programs, **{name: ("k3s", name) for name in missing}}
        return attrs.evolve(runtime, programs=programs)
    if "ctr" in missing:
        raise NodeUnusable(
            "containerd runs there, but there is no ctr to control it",
            hint="put ctr from containerd's release on the PATH there",
        )
    return runtime
