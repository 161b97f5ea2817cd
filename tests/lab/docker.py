"""Debian's Docker, and a newer version."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.certificates import make_certificates
from tests.lab.cleanup import evict, unlink_shims_sockets
from tests.lab.daemon import Daemon
from tests.lab.engine import LABEL, NETWORK, Engine, ping
from tests.lab.machine import can_raise_limits, program_outside
from tests.lab.shell import output, run, succeeds, write

_TLS_PORTS = 23000
_REQUESTS_ONLY_AVAILABLE_CAPABILITIES = 23
_OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "dockerd")
_UNPRIVILEGED_EXEC = """\
#!/bin/sh
for word; do shift; [ "$word" = --privileged ] || set -- "$@" "$word"; done
exec {docker} "$@"
"""


@attrs.frozen
class Docker(Engine):
    """dockerd with its own data, socket and bridges.

    With `cut_off` it runs in its own network namespace, as in a VM: a push to the loopback of this
    machine does not arrive. It runs no containers.
    """

    code: str = "d"
    subnet: int = 0
    features: dict[str, bool] = attrs.field(factory=dict)
    cut_off: bool = False
    tls: bool = False

    @property
    def tls_url(self) -> str:
        """A second address, on this machine only, with TLS."""
        return f"tcp://127.0.0.1:{_TLS_PORTS + self.paths.octet}"

    @property
    def certificates(self) -> Path:
        """The folder with a client's ca.pem, cert.pem and key.pem."""
        return self.paths.root / self.name / "tls"

    @property
    def tools(self) -> list[Path]:
        """Folders whose programs precede the machine's."""
        return []

    @property
    def build_options(self) -> tuple[str, ...]:
        """No options, because the classic builder needs none."""
        return ()

    @property
    def unmasked(self) -> str:
        """Docker's option."""
        return "systempaths=unconfined"

    @property
    def client(self) -> tuple[str, ...]:
        """The machine's docker client."""
        return (program_outside("docker", self.paths.run) or "docker", "-H", self.url)

    @property
    def has_containerd_store(self) -> bool:
        """Docker's feature, which is not the default here."""
        return self.features.get("containerd-snapshotter", False)

    @property
    def version(self) -> str:
        """The server's version."""
        return self.cli("version", "--format", "{{.Server.Version}}").strip()

    def may_be_privileged(self) -> bool:
        """Return whether it works; older versions require every capability."""
        major = int(self.version.split(".")[0])
        return can_raise_limits() or major >= _REQUESTS_ONLY_AVAILABLE_CAPABILITIES

    def environ(self) -> dict[str, str]:
        """Return variables for this daemon, with a wrapper for kind if privileged exec fails."""
        variables = {"DOCKER_HOST": self.url, "PATH": os.environ["PATH"]}
        if not self.may_be_privileged():
            variables["PATH"] = f"{self._wrapper().parent}:{variables['PATH']}"
        return variables

    @property
    def daemon(self) -> Daemon:
        """dockerd, including its containerd."""
        run_folder = self.paths.run / self.name
        folder = self.paths.root / self.name
        options = {
            "config-file": folder / "daemon.json",
            "data-root": folder / "data",
            "exec-root": run_folder / "exec",
            "pidfile": run_folder / "dockerd.pid",
            "host": self.url,
            "bridge": "none" if self.cut_off else self._bridge,
        }
        switches = ("iptables", "ip6tables", "ip-masq", "ip-forward")
        argv = [f"--{key}={value}" for key, value in options.items()]
        argv += [f"--{switch}=false" for switch in switches]
        argv += self._tls_options() if self.tls else []
        return Daemon(
            self.name,
            (*(_OWN_NETWORK if self.cut_off else ()), "dockerd", *argv),
            run_folder,
            ready=partial(ping, self.socket),
            env={"PATH": self._path()},
        )

    def start(self) -> None:
        """Start dockerd on its own bridge, and create a network like kind's."""
        if not self.running():
            self._prepare()
            self.daemon.start()
        if not self.cut_off and not succeeds(*self.client, "network", "inspect", NETWORK):
            self._make_network()

    @property
    def _bridge(self) -> str:
        return f"lab{self.paths.octet}-{self.code}"

    def _address(self, last: int) -> str:
        return f"10.{self.paths.octet}.{self.subnet}.{last}/25"

    def _prepare(self) -> None:
        write(self.paths.root / self.name / "daemon.json", json.dumps({"features": self.features}))
        if self.tls:
            make_certificates(self.certificates)
        evict(self.daemon.folder)
        unlink_shims_sockets(self.daemon.folder)
        shutil.rmtree(self.daemon.folder, ignore_errors=True)
        if self.cut_off:
            return
        if not Path("/sys/class/net", self._bridge).exists():
            run("ip", "link", "add", self._bridge, "type", "bridge")
            run("ip", "address", "add", self._address(1), "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")

    def _tls_options(self) -> list[str]:
        folder = self.certificates
        files = {"cacert": "ca.pem", "cert": "server-cert.pem", "key": "server-key.pem"}
        given = [f"--tls{option}={folder / name}" for option, name in files.items()]
        return [f"--host={self.tls_url}", "--tlsverify", *given]

    def _make_network(self) -> None:
        bridge = f"com.docker.network.bridge.name={self._bridge}-k"
        options = (f"--subnet={self._address(128)}", f"--opt={bridge}")
        label = f"--label={LABEL}={self.paths.root}"
        self.cli("network", "create", label, *options, NETWORK)

    def _path(self) -> str:
        return ":".join([*map(str, self.tools), os.environ["PATH"], "/usr/sbin", "/sbin"])

    def _wrapper(self) -> Path:
        text = _UNPRIVILEGED_EXEC.format(docker=program_outside("docker", self.paths.run))
        return write(self.paths.run / "bin/docker/docker", text, 0o755)


@attrs.frozen
class NewerDocker(Docker):
    """A newer Docker with the machine's client and bookworm's runc, unpacked but not installed."""

    release: str = suites.NEWEST

    @property
    def tools(self) -> list[Path]:
        """Folders of the unpacked packages."""
        trees = (suites.folder(self.paths.cache, *program) for program in self._programs)
        return [tree / "usr" / kind for tree in trees for kind in ("sbin", "bin")]

    @property
    def _programs(self) -> tuple[tuple[str, str], ...]:
        return (("docker", self.release), ("runc", "1.1"))

    def ctr(self, *args: str) -> str:
        """Return the output of ctr on dockerd's own containerd."""
        socket = self.daemon.folder / "exec/containerd/containerd.sock"
        [program] = [path for tool in self.tools if (path := tool / "ctr").exists()]
        return output(program, "--address", socket, "--namespace", "moby", *args).decode()

    def start(self) -> None:
        """Unpack the packages, and start dockerd."""
        for program in self._programs:
            suites.tree(self.paths.cache, *program)
        super().start()
