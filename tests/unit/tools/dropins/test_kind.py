"""Command lines of kind, its selection of nodes, and its messages."""

from pathlib import Path

import pytest

from imgload.core.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    EngineUnreachable,
    NodeNotFound,
    UsageError,
)
from imgload.engines.base import Container, Engine
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.loader.events import ImageFound, SendingStarted
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.dropins.k3d import K3d
from imgload.tools.dropins.kind import Kind, KindStory
from imgload.tools.dropins.run import select
from imgload.tools.dropins.tool import HandOver, Help, Request
from tests.unit.clusters.test_provider import container
from tests.unit.fakes import LocalEngine

ID = Digest.of(b"config")
LISTED = Request(("kind",), ("app:dev",))


def understand(line: str, **environ: str) -> Request | Help | HandOver:
    return Kind().understand(line.split(), environ)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "create cluster --name a",
        "get clusters",
        "version",
        "--version",
        "--help",
        "help load",
        "completion bash",
        "__complete load docker-image x",
        "delete load docker-image",
        "loads docker-image x",
        "--nope load docker-image x",
        "-- load docker-image x",
    ],
)
def test_understand_hands_over_all_other_commands(line: str) -> None:
    assert understand(line) == HandOver()


def test_understand_parses_images_without_duplicates() -> None:
    line = "load -v 2 docker-image app:dev db:1 app:dev --nodes a,b -n dev --nodes c"
    assert understand(line) == Request(
        clusters=("dev",), images=("app:dev", "db:1"), nodes=("a", "b", "c"), verbosity=2
    )


def test_understand_parses_archives_with_kinds_advice() -> None:
    request = understand("load image-archive a.tar - -n dev")
    assert isinstance(request, Request)
    assert (request.images, request.archives, request.piped) == ((), ("a.tar", "-"), False)
    assert len(request.notes) == 1


@pytest.mark.parametrize(
    ("line", "variable", "cluster"),
    [
        ("", "", "kind"),
        ("", "dev", "dev"),
        ("--name a", "dev", "a"),
        ("-n a -n b", "", "b"),
        ("--name=", "dev", ""),
    ],
)
def test_understand_takes_the_cluster_from_flag_variable_or_default(
    line: str, variable: str, cluster: str
) -> None:
    """An empty name stays empty, and no cluster has it."""
    request = understand(f"load docker-image app {line}", KIND_CLUSTER_NAME=variable)
    assert isinstance(request, Request)
    assert request.clusters == (cluster,)


@pytest.mark.parametrize(
    ("provider", "engine", "note"),
    [
        ("", None, ""),
        ("docker", "docker", "using docker due to"),
        ("podman", "podman", "using podman due to"),
        ("vagrant", None, 'ignoring unknown value "vagrant"'),
    ],
)
def test_understand_takes_the_engine_from_the_provider_variable(
    provider: str, engine: str | None, note: str
) -> None:
    request = understand("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(request, Request)
    assert request.engine == engine
    assert "".join(request.notes).startswith(note)
    assert bool(request.notes) is bool(note)


@pytest.mark.parametrize("provider", ["nerdctl", "finch", "nerdctl.lima"])
def test_understand_hands_over_clusters_on_nerdctl(provider: str) -> None:
    """Only if the command line is valid."""
    exec_real = understand("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(exec_real, HandOver)
    assert provider in exec_real.why
    with pytest.raises(UsageError):
        understand("load docker-image", KIND_EXPERIMENTAL_PROVIDER=provider)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("load -h", "kind load docker-image IMAGE"),
        ("load docker-image -h", "IMAGE is"),
        ("load image-archive x --help", "ARCHIVE is"),
    ],
)
def test_understand_returns_help_with_kinds_flags(line: str, words: str) -> None:
    help_text = understand(line)
    assert isinstance(help_text, Help)
    assert not help_text.error
    for part in (words, "--nodes A,B", "--quiet", "--verbosity", "--name", "imgload"):
        assert part in help_text.text


def engine(folder: Path, kind: EngineKind, *containers: Container, at: str = "x") -> LocalEngine:
    endpoint = Endpoint(kind, f"unix://{folder}/{at}-{kind}.sock")
    return LocalEngine(folder, containers=containers, endpoint=endpoint)


def nodes(cluster: str, count: int = 1) -> list[Container]:
    return [container(f"{cluster}-worker{number}", cluster) for number in range(2, count + 2)]


def chosen(engines: list[LocalEngine], request: Request = LISTED) -> list[tuple[str, str]]:
    reachable: list[Engine] = [*engines]
    selected = select(reachable, Kind(), request, request.clusters[0])
    return [(node.engine.name, node.name) for node in selected]


def test_select_prefers_docker(tmp_path: Path) -> None:
    podman = engine(tmp_path, "podman", *nodes("kind"))
    assert chosen([engine(tmp_path, "docker", *nodes("a")), podman]) == [("podman", "kind-worker2")]
    assert chosen([podman, engine(tmp_path, "docker", *nodes("kind"))]) == [
        ("docker", "kind-worker2")
    ]


def test_select_uses_only_the_requested_engine(tmp_path: Path) -> None:
    both = [engine(tmp_path, "docker", *nodes("kind")), engine(tmp_path, "podman", *nodes("a"))]
    assert chosen(both, Request(("kind",), engine="docker")) == [("docker", "kind-worker2")]
    with pytest.raises(
        ClusterNotFound, match=r'^no nodes found for cluster "kind" on podman'
    ) as no:
        chosen(both, Request(("kind",), engine="podman"))
    assert no.value.hint == "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
    with pytest.raises(EngineUnreachable, match="no podman answers"):
        chosen(both[:1], Request(("kind",), engine="podman"))


def test_select_requires_the_exact_name(tmp_path: Path) -> None:
    """kind knows no contexts."""
    engines = [engine(tmp_path, "docker", *nodes("dev"))]
    for name in ("kind-dev", "", "de"):
        with pytest.raises(ClusterNotFound, match=f'no nodes found for cluster "{name}"'):
            chosen(engines, Request((name,)))


def test_select_ignores_clusters_of_other_tools(tmp_path: Path) -> None:
    engines = [engine(tmp_path, "docker", *nodes("kind"))]
    with pytest.raises(ClusterNotFound, match="available: none") as raised:
        select(engines, K3d(), LISTED, "kind")
    assert raised.value.hint == "create one: k3d cluster create"


def test_select_refuses_to_guess_between_two_engines_of_one_kind(tmp_path: Path) -> None:
    """Rootful and rootless Docker."""
    two = [engine(tmp_path, "docker", *nodes("kind"), at=at) for at in "ab"]
    with pytest.raises(ClusterAmbiguous, match=r"a-docker\.sock and .*b-docker\.sock"):
        chosen(two)


def test_select_keeps_the_order_of_nodes_without_duplicates(tmp_path: Path) -> None:
    engines = [engine(tmp_path, "docker", *nodes("kind", 3))]
    request = Request(("kind",), nodes=("kind-worker4", "kind-worker2", "kind-worker4"))
    assert [name for _, name in chosen(engines, request)] == ["kind-worker4", "kind-worker2"]
    assert len(chosen(engines, Request(("kind",), nodes=()))) == 3
    with pytest.raises(NodeNotFound, match=r'^unknown node: "x"'):
        chosen(engines, Request(("kind",), nodes=("kind-worker2", "x")))


def results(*actions: str) -> Report:
    made = tuple(NodeResult(f"n{i}", action) for i, action in enumerate(actions))  # type: ignore[arg-type]
    name = "docker.io/library/app:dev"
    return Report((ImageResult(name, ID, "docker", Platform("linux", "amd64"), made),))


def test_story_uses_kinds_messages_once_per_image() -> None:
    """Names appear as typed."""
    story = KindStory.of(["app:dev"])
    name = "docker.io/library/app:dev"
    sending = SendingStarted("n0", (name,), 10)
    lines = [
        line
        for event in (ImageFound(name, ID, "docker", 10), sending, sending)
        for line in story.tell(event)
    ]
    image = f'Image: "app:dev" with ID "{ID}"'
    assert lines == [f'{image} not yet present on node "n0", loading...']
    assert list(story.conclude(results("present", "present"))) == [
        f"{image} found to be already present on all nodes."
    ]
    assert list(story.conclude(results("present", "full"))) == []
    [tagged] = story.conclude(results("present", "tagged"))
    assert tagged == (
        f"Image with ID: {ID} already present on the node n1 but is missing the tag {name}."
        " re-tagging..."
    )


def test_story_has_no_messages_for_archives() -> None:
    story = KindStory.of([])
    assert list(story.tell(SendingStarted("n0", ("app",), 10))) == []
    assert list(story.conclude(results("present"))) == []


def test_story_shows_full_names_of_images_requested_by_id() -> None:
    story = KindStory.of(["App:?", "sha256:abcd"])
    [line] = story.tell(SendingStarted("n0", ("docker.io/library/app:dev",), 10))
    assert line.startswith('Image: "docker.io/library/app:dev" with ID ""')
