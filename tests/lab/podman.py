"""Podman with the lab's own storage, settings and network."""

import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.cleanup import evict
from tests.lab.daemon import Daemon
from tests.lab.engine import NETWORK, Engine, ping
from tests.lab.machine import can_raise_limits, program_outside
from tests.lab.shell import succeeds, write

_SETTINGS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""
"""Locks are files, because locks in shared memory are shared with the user's Podman."""
_WRAPPER = """\
#!/bin/sh
unset CONTAINER_HOST CONTAINER_CONNECTION
exec {launcher} CONTAINERS_CONF={settings} {podman} {options} "$@"
"""


@attrs.frozen
class Podman(Engine):
    """A rootful `podman system service`."""

    code: str = "p"
    subnet: int = 64

    @property
    def client(self) -> tuple[str, ...]:
        """A `podman` with the lab's storage."""
        return (str(self._wrapper),)

    @property
    def build_options(self) -> tuple[str, ...]:
        """Options to build without kernel features that a sandbox may lack."""
        return ("--isolation=chroot",)

    @property
    def version(self) -> str:
        """The version of client and server."""
        return self.cli("version", "--format", "{{.Client.Version}}").strip()

    @property
    def unmasked(self) -> str:
        """Podman's option."""
        return "unmask=ALL"

    @property
    def daemon(self) -> Daemon:
        """The API service."""
        service = (*self.client, "system", "service", "--time=0", self.url)
        ready = partial(ping, self.socket)
        return Daemon(self.name, service, self._run, ready=ready)

    def may_be_privileged(self) -> bool:
        """Return whether it works; Podman requires every capability."""
        return can_raise_limits()

    def environ(self) -> dict[str, str]:
        """Return variables for this service, and for kind with Podman."""
        return {
            "CONTAINER_HOST": self.url,
            "KIND_EXPERIMENTAL_PROVIDER": "podman",
            "PATH": f"{self._wrapper.parent}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start the service with the lab's settings."""
        if not self.running():
            self._reset()
            self._prepare()
            self.daemon.start()

    def clear(self) -> None:
        """Remove the containers, also after the service was killed."""
        self._reset() if not self.running() else super().clear()

    def _reset(self) -> None:
        """Remove containers that ended without Podman's knowledge, as after a reboot."""
        if not self._wrapper.exists():
            return
        names = self.containers()
        sandboxes = self._sandboxes(*names)
        evict(self._run, self._folder)
        shutil.rmtree(self._state, ignore_errors=True)
        for sandbox in sandboxes:
            succeeds("umount", sandbox)
            Path(sandbox).unlink(missing_ok=True)
        self.remove_containers(*names)

    def _sandboxes(self, *names: str) -> list[str]:
        template = "{{.NetworkSettings.SandboxKey}}"
        return self.cli("inspect", "--format", template, *names).split() if names else []

    @property
    def _folder(self) -> Path:
        return self.paths.root / self.name

    @property
    def _run(self) -> Path:
        return self.paths.run / self.name

    @property
    def _state(self) -> Path:
        """The folder that a reboot would clear."""
        return self._run / "state"

    @property
    def _wrapper(self) -> Path:
        return self._run / "bin/podman"

    @property
    def _program(self) -> Path | str | None:
        return program_outside("podman", self.paths.run)

    @property
    def _settings(self) -> str:
        return _SETTINGS

    @property
    def _launcher(self) -> str:
        return "env"

    def _options(self) -> dict[str, object]:
        return {
            "root": self._folder / "storage",
            "runroot": self._state / "storage",
            "tmpdir": self._state / "tmp",
            "network-config-dir": self._folder / "networks",
            "runtime-flag": f"root={self._state / 'runc'}",
        }

    def _prepare(self) -> None:
        write(self._folder / "networks" / f"{NETWORK}.json", json.dumps(self._network()))
        text = _WRAPPER.format(
            launcher=self._launcher,
            settings=write(self._folder / "containers.conf", self._settings),
            podman=self._program,
            options=" ".join(f"--{key}={value}" for key, value in self._options().items()),
        )
        write(self._wrapper, text, 0o755)

    def _network(self) -> dict[str, object]:
        """Return an internal network, which needs no firewall rules."""
        start = f"10.{self.paths.octet}.{self.subnet}"
        subnet = {"subnet": f"{start}.0/18", "gateway": f"{start}.1"}
        return {
            "name": NETWORK,
            "id": hashlib.sha256(str(self._folder).encode()).hexdigest(),
            "driver": "bridge",
            "network_interface": f"lab{self.paths.octet}-{self.code}-k",
            "created": "2020-01-01T00:00:00Z",
            "subnets": [subnet],
            "ipv6_enabled": False,
            "internal": True,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }


@attrs.frozen
class NewerPodman(Podman):
    """The newest Podman with its own conmon and netavark, unpacked but not installed."""

    @property
    def _tree(self) -> Path:
        return suites.folder(self.paths.cache, "podman")

    @property
    def _program(self) -> Path:
        return self._tree / "usr/bin/podman"

    @property
    def _settings(self) -> str:
        helpers = [str(self._tree / "usr/lib/podman"), str(self._tree / "usr/libexec/podman")]
        conmon = [str(self._tree / "usr/bin/conmon")]
        return f"{_SETTINGS}helper_binaries_dir = {helpers}\nconmon_path = {conmon}\n"

    def start(self) -> None:
        """Unpack the packages, and start the service."""
        suites.tree(self.paths.cache, "podman")
        super().start()
