"""The options and the output of ``imgload serve``."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from imgload.core.errors import EngineUnreachable, ImageAmbiguous
from imgload.loader.events import Note
from imgload.oci.digest import Digest
from imgload.tools.remote_registry.configure import NodeWiring
from imgload.tools.serve.serve import NodeReady, Serve, ServeEvent, ServeOptions
from imgload.tools.serve.store import NodePull
from tests.unit.cli.conftest import Run

EVENTS: list[ServeEvent] = [
    Note("serving"),
    NodeReady(NodeWiring("n1", ("/a",), cri=True)),
    NodeReady(NodeWiring("n2", error=EngineUnreachable("broken", hint="repair it"))),
    NodePull("n1", "app:dev", Digest.of(b""), 2048, 0.5),
    NodePull("n1", "app:two", error=ImageAmbiguous("two images", hint="--from")),
]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Have `serve` show some events until a Ctrl-C; collect its options."""
    collected: list[ServeOptions] = []

    @contextmanager
    def opened(options: ServeOptions) -> Iterator[Iterator[ServeEvent]]:
        collected.append(options)
        yield events()

    def events() -> Iterator[ServeEvent]:
        yield from EVENTS
        raise KeyboardInterrupt

    monkeypatch.setattr(Serve, "open", opened)
    return collected


def test_each_event_is_one_document(run: Run, options: list[ServeOptions]) -> None:
    """Ctrl-C is the normal end."""
    outcome = run("serve", "-o", "json", "app", "-c", "a", "-c", "b", "--cache-size", "2MB")
    assert outcome.status == 0
    documents = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [d["version"] for d in documents] == [1] * len(EVENTS)
    note, ready, failed, pull, refused = documents
    assert note["note"] == "serving"
    assert (ready["node"], ready["cri"], ready["ok"]) == ("n1", True, True)
    assert (failed["ok"], failed["error"]["hint"]) == (False, "repair it")
    assert (pull["image_id"], pull["bytes_sent"]) == (str(Digest.of(b"")), 2048)
    assert (refused["reference"], refused["error"]["kind"]) == ("app:two", "image-ambiguous")
    assert options == [ServeOptions(("app",), ("a", "b"), cache_size=2_000_000)]


def test_each_event_is_a_line_of_text(run: Run, options: list[ServeOptions]) -> None:
    """Nodes and pulls are results; notes are on stderr."""
    outcome = run("serve")
    assert options == [ServeOptions()]
    assert ["serving" in line or "stopping" in line for line in outcome.stderr.splitlines()] == [
        True,
        True,
    ]
    ready, *_, pull, _refused, _hint = outcome.stdout.splitlines()
    assert ready.endswith("✓ n1: CRI pulls through imgload")
    assert pull.endswith(f"app:dev -> n1: {Digest.of(b'').short}, 2 KiB in 0.5 s")


@pytest.mark.parametrize("size", ["", "10", "-1GB", "1PB", "1e3MB", "10 gigabytes"])
def test_an_invalid_size_is_wrong_usage(run: Run, size: str) -> None:
    assert run("serve", "--cache-size", size).status == 2


def test_the_printed_configuration_is_valid(run: Run) -> None:
    """For kind with the patch of containerd's configuration, as registry connect would set it."""
    document = yaml.safe_load(run("serve", "--print-config", "kind").stdout)
    patch = tomllib.loads(document["containerdConfigPatches"][0])
    registry = patch["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert registry == {"config_path": "/etc/containerd/certs.d"}
    assert yaml.safe_load(run("serve", "--print-config", "k3d").stdout)["mirrors"]
    assert run("serve", "--print-config", "minikube").status == 0
