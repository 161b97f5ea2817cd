"""An engine whose containers are this machine, with fake ctr and crictl first on PATH."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from imgload.core.errors import EngineFailed
from imgload.engines.base import (
    Chunk,
    Container,
    Engine,
    EngineImage,
    EventsOpened,
    ExecResult,
    ImageEvent,
)
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

RUNNING = Container("c1", "kind-control-plane", "running", {})


class LocalEngine(Engine):
    """An engine that runs commands as local processes, and has the given images and containers.

    Args:
        programs: shell scripts by name, which precede the machine's programs on PATH.

    """

    def __init__(
        self,
        folder: Path,
        programs: Mapping[str, str] | None = None,
        images: Mapping[str, EngineImage] | None = None,
        containers: Sequence[Container] = (RUNNING,),
        endpoint: Endpoint | None = None,
    ) -> None:
        self.endpoint = endpoint or Endpoint("docker", f"unix://{folder}/engine.sock")
        self.images = dict(images or {})
        self._containers = list(containers)
        self._path = f"{folder}:{os.environ['PATH']}"
        for name, script in (programs or {}).items():
            program = folder / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        del container
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": self._path},
            start_new_session=True,
        )
        outputs = _Outputs(process)
        try:
            _feed(process, stdin)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            stdout, stderr = outputs.collect()
        return ExecResult(process.wait(), stdout, stderr)

    def find(self, name: str) -> EngineImage | None:
        return self.images.get(name)

    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        del references
        return {name: image.target for image in self.images.values() for name in image.names}

    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        raise NotImplementedError

    def containers(self, label: str) -> list[Container]:
        if not label:
            return list(self._containers)
        key, _, value = label.partition("=")
        return [
            c for c in self._containers if c.labels.get(key, "") == (value or c.labels.get(key))
        ]

    def container(self, name: str) -> Container | None:
        return next((c for c in self._containers if name in {c.name, c.id}), None)

    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]:
        del platform, size
        return _nothing(images)

    def layer_sizes(self, image: Digest) -> list[int]:
        raise NotImplementedError

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        def push() -> None:
            raise EngineFailed(f"{image} is not pushed to {repository}")

        yield push

    def put_archive(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        self.exec(container, ["tar", "-C", folder, "-xf", "-"], archive)

    def close(self) -> None:
        self._containers.clear()


@contextmanager
def _nothing(images: Sequence[str]) -> Iterator[Iterator[bytes]]:
    yield (image.encode() for image in images)


class _Outputs:
    """Reads stdout and stderr of a process in parallel."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        assert process.stderr
        self._read: dict[str, bytes] = {}
        self._threads = [
            threading.Thread(target=self._take, args=(name, pipe), daemon=True)
            for name, pipe in (("out", process.stdout), ("err", process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def _take(self, name: str, pipe: Iterable[bytes]) -> None:
        self._read[name] = b"".join(pipe)

    def collect(self) -> tuple[bytes, bytes]:
        for thread in self._threads:
            thread.join()
        return self._read["out"], self._read["err"]


def _feed(process: subprocess.Popen[bytes], stdin: Iterable[Chunk] | None) -> None:
    if stdin is None:
        return
    assert process.stdin
    with suppress(BrokenPipeError):
        for chunk in stdin:
            process.stdin.write(chunk)
        process.stdin.close()


def engine_image(
    content: str = "app", names: Sequence[str] = ("app:v1",), platform: str = "linux/amd64"
) -> EngineImage:
    """Return an image of an engine."""
    image_id = Digest.of(content.encode())
    diff_ids = (Digest.of(b"layer"),)
    return EngineImage(image_id, image_id, tuple(names), Platform.parse(platform), diff_ids, 100)
