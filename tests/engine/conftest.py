"""Fixtures and helpers of the tests on real engines."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from _pytest.mark import ParameterSet

from tests.engine.seldom import SELDOM
from tests.lab import Lab, Node
from tests.lab.engine import Engine
from tests.lab.store import Store

RECORDS_OF_CRI = "sha256:"


def cases(every: Mapping[str, Any], short: Collection[str]) -> list[ParameterSet]:
    """Return cases by name for parametrize; those not in `short` are marked ``long``."""
    long = (pytest.mark.long,)
    return [pytest.param(v, id=n, marks=() if n in short else long) for n, v in every.items()]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that `seldom.py` lists; refuse variants there that do not exist."""
    names = [item.nodeid.removeprefix("tests/engine/") for item in items]
    for item, name in zip(items, names, strict=True):
        if name.startswith(SELDOM):
            item.add_marker(pytest.mark.long)
    tests = {name.partition("[")[0] for name in names}
    listed = [start for start in SELDOM if start.partition("[")[0] in tests]
    absent = [start for start in listed if not any(name.startswith(start) for name in names)]
    if absent and not any("[" in argument for argument in config.args):
        raise pytest.UsageError(f"seldom.py lists variants that do not exist: {absent}")


@attrs.define
class Images:
    """Builds unique images, and removes them at the end."""

    _built: list[tuple[Engine, str]] = attrs.field(factory=list)

    def build(self, engine: Engine, tag: str, *layers: bytes, base: str | None = None) -> str:
        """Build an image; each layer is a file with random bytes followed by the given ones."""
        parts = layers or (b"content",)
        files = [{f"layer{i}": secrets.token_bytes(64) + part} for i, part in enumerate(parts)]
        image = engine.build(tag, base=base, layers=files)
        self._built.append((engine, tag))
        return image

    def clear(self) -> None:
        """Remove the built images."""
        for engine in {engine.name: engine for engine, _ in self._built}.values():
            tags = (tag for builder, tag in self._built if builder == engine)
            engine.remove_image(*dict.fromkeys(tags))


@pytest.fixture
def images() -> Iterator[Images]:
    """Build images for one test."""
    builder = Images()
    yield builder
    builder.clear()


@pytest.fixture(autouse=True)
def environment(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use only the lab's engines and no kube context; start one cluster."""
    lab.up("lab-d21")
    monkeypatch.setenv("DOCKER_HOST", lab.docker.url)
    monkeypatch.setenv("CONTAINER_HOST", lab.podman.url)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


LOONG64 = {"architecture": "loong64", "os": "linux"}
REGISTER = r"""
cd /proc/sys/fs/binfmt_misc
[ -e status ] || { mount -t binfmt_misc none "$PWD" && cd "$PWD"; }
header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x02\x01'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf %s ":imgload-test:M:0:$header:$mask:/bin/true:F" >register
echo registered
cat
printf %s -1 >imgload-test
"""
"""Registers an emulator for loong64 until standard input ends."""


@pytest.fixture
def loong64() -> Iterator[dict[str, str]]:
    """Give a platform that the kernel of this machine emulates during the test."""
    command = ["unshare", "-m", "sh", "-ec", REGISTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"registered\n"
        yield LOONG64
        process.communicate()
    assert process.returncode == 0


def unique(name: str = "app") -> str:
    """Return an image name that no other test uses."""
    return f"{name}:t{secrets.token_hex(6)}"


def cri_id(node: Node, name: str) -> str | None:
    """Return the image ID that the node's CRI has for a name, without crictl."""
    return node.cri().image_id(name)


def records(node: Node) -> set[str]:
    """Return the names of all image records on a node, except CRI's own by image ID."""
    names = Store(node.cri().socket).records()
    return {name for name in names if not name.startswith(RECORDS_OF_CRI)}


def record_digest(node: Node, name: str) -> str:
    """Return the digest to which a record refers."""
    return node.ctr("images", "ls", f"name=={name}").splitlines()[1].split()[2]


def forget(node: Node, *names: str) -> None:
    """Remove images from a node by name, as the kubelet would."""
    for name in names:
        node.cri().remove_image(name)
