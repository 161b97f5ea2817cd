"""The common interface of Docker and Podman in the lab."""

import contextlib
import http.client
import json
import os
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from tests.lab.daemon import Daemon
from tests.lab.machine import Paths
from tests.lab.shell import CommandError, LabError, output

LABEL = "imgload-lab"
RECIPE = "imgload-lab.recipe"
NETWORK = "kind"
_NODE_LIMITS = ("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined")

Files = Mapping[str, bytes | Iterable[bytes]]


@attrs.frozen
class Engine(ABC):
    """An engine with its own API socket and command-line client."""

    name: str
    paths: Paths

    @property
    @abstractmethod
    def daemon(self) -> Daemon:
        """The process that serves the API."""

    @property
    @abstractmethod
    def client(self) -> tuple[str, ...]:
        """The command-line client for this engine."""

    @property
    @abstractmethod
    def build_options(self) -> tuple[str, ...]:
        """Options that `build` needs with this engine."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version that the API reports."""

    @property
    def has_containerd_store(self) -> bool:
        """Whether an image's ID is the digest of its manifest."""
        return False

    @abstractmethod
    def start(self) -> None:
        """Start the engine unless it runs, and wait until the API answers."""

    @abstractmethod
    def environ(self) -> dict[str, str]:
        """Return the variables with which subprocesses, including kind, use this engine."""

    @abstractmethod
    def may_be_privileged(self) -> bool:
        """Return whether this engine can start a privileged container on this machine."""

    @property
    @abstractmethod
    def unmasked(self) -> str:
        """The option that makes all of /proc and /sys writable."""

    @property
    def socket(self) -> Path:
        """The API socket."""
        return self.paths.run / f"{self.name}.sock"

    @property
    def url(self) -> str:
        """The API's address."""
        return f"unix://{self.socket}"

    def running(self) -> bool:
        """Return whether the API answers."""
        return ping(self.socket)

    def stop(self) -> None:
        """Stop the process that serves the API."""
        self.daemon.stop()

    def clear(self) -> None:
        """Remove the lab's containers and stop the process that serves the API."""
        if self.running():
            with contextlib.suppress(CommandError):
                self.remove_containers(*self.containers())
            self.stop()

    def cli(self, *args: str | Path, stdin: bytes = b"") -> str:
        """Return the output of the client; raise `CommandError` with its stderr."""
        return self.raw(*args, stdin=stdin).decode(errors="replace")

    def raw(self, *args: str | Path, stdin: bytes = b"") -> bytes:
        """Return the output of the client as bytes, for example of `save`."""
        return output(*self.client, *args, stdin=stdin, env={"DOCKER_BUILDKIT": "0"})

    def build(
        self,
        tag: str,
        files: Files | None = None,
        *,
        base: str | None = None,
        layers: Sequence[Files] = (),
        instructions: Sequence[str] = (),
    ) -> str:
        """Build an image with one layer per mapping of paths to contents; return its ID.

        The build context is below the lab's folder, because /tmp may be in memory.
        """
        with tempfile.TemporaryDirectory(prefix="build-", dir=self.paths.folder()) as folder:
            context = Path(folder)
            context.chmod(0o755)
            copies = _write_layers([*layers, *([files] if files else [])], context)
            lines = [f"FROM {base or 'scratch'}", *copies, *instructions]
            (context / "Dockerfile").write_text("\n".join(lines) + "\n")
            return _full_id(self.cli("build", "-q", "-t", tag, *self.build_options, context))

    def image_id(self, image: str) -> str:
        """Return the engine's ID of an image, with `sha256:`."""
        return _full_id(self.cli("image", "inspect", "--format", "{{.Id}}", image))

    def pid_of(self, container: str) -> int:
        """Return the process ID of a container's init; the API answers faster than the client."""
        with contextlib.closing(_Connection(self.socket)) as connection:
            connection.request("GET", f"/containers/{container}/json")
            answer = connection.getresponse()
            shown = json.load(answer)
        if answer.status != http.client.OK:
            raise LabError(f"{container}: {shown['message']}")
        return int(shown["State"]["Pid"])

    def remove_image(self, *images: str) -> None:
        """Remove names; the last name of an image removes the image."""
        self.cli("rmi", "--force", *images)

    def image_label(self, image: str, label: str) -> str | None:
        """Return a label of an image; None if the image does not exist."""
        template = f'{{{{index .Config.Labels "{label}"}}}}'
        try:
            return self.cli("image", "inspect", "--format", template, image).strip()
        except CommandError:
            return None

    def node_options(self) -> list[str]:
        """Return the options of a node's container: `--privileged` or its replacement, and more."""
        if self.may_be_privileged():
            return ["--privileged", *_NODE_LIMITS]
        capabilities = ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE"]
        return [*capabilities, *_NODE_LIMITS, f"--security-opt={self.unmasked}"]

    def containers(self) -> dict[str, bool]:
        """Return the lab's containers on this engine, and whether each one runs."""
        listing = ("ps", "-a", "--filter", f"label={LABEL}={self.paths.root}")
        shown = self.cli(*listing, "--format", "{{.Names}} {{.Status}}")
        pairs = (line.split(maxsplit=1) for line in shown.splitlines())
        return {name: status.startswith("Up ") for name, status in pairs}

    def remove_containers(self, *names: str) -> None:
        """Remove containers with their volumes, running or not."""
        if names:
            self.cli("rm", "--force", "--volumes", *names)


def _full_id(shown: str) -> str:
    return f"sha256:{shown.strip().removeprefix('sha256:')}"


def _write_layers(layers: Sequence[Files], context: Path) -> list[str]:
    """Write each layer's files to its own folder; return the COPY lines."""
    for number, layer in enumerate(layers):
        for name, content in layer.items():
            path = context / f"layer{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
            os.utime(path, (0, 0))
    return [f"COPY layer{number}/ /" for number in range(len(layers))]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ping(path: Path) -> bool:
    """Return whether a Docker-compatible API answers on the socket."""
    connection = _Connection(path)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
