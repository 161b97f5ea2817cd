"""What a command line means to kind, and which nodes a name means to it."""

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
from tests.unit.clusters.test_kind import container
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
def test_whatever_is_not_load_is_the_real_kinds(line: str) -> None:
    """Unknown commands, too: kind says best what is wrong with them."""
    assert understand(line) == HandOver()


def test_images_are_asked_for_in_kinds_words() -> None:
    """One name twice is one image."""
    line = "load -v 2 docker-image app:dev db:1 app:dev --nodes a,b -n dev --nodes c"
    assert understand(line) == Request(
        clusters=("dev",), images=("app:dev", "db:1"), nodes=("a", "b", "c"), verbosity=2
    )


def test_archives_are_asked_for_in_kinds_words() -> None:
    """Each is loaded, and kind's advice for several of them is given."""
    asked = understand("load image-archive a.tar - -n dev")
    assert isinstance(asked, Request)
    assert (asked.images, asked.archives, asked.piped) == ((), ("a.tar", "-"), False)
    assert len(asked.notes) == 1


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
def test_a_cluster_has_its_name_from_the_flag_the_variable_or_kind(
    line: str, variable: str, cluster: str
) -> None:
    """A name that is given and empty is an empty name, and no cluster has that."""
    asked = understand(f"load docker-image app {line}", KIND_CLUSTER_NAME=variable)
    assert isinstance(asked, Request)
    assert asked.clusters == (cluster,)


@pytest.mark.parametrize(
    ("provider", "engine", "said"),
    [
        ("", None, ""),
        ("docker", "docker", "using docker due to"),
        ("podman", "podman", "using podman due to"),
        ("vagrant", None, 'ignoring unknown value "vagrant"'),
    ],
)
def test_the_provider_is_the_engine_that_runs_the_cluster(
    provider: str, engine: str | None, said: str
) -> None:
    """And kind says that it heard so."""
    asked = understand("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(asked, Request)
    assert asked.engine == engine
    assert "".join(asked.notes).startswith(said)
    assert bool(asked.notes) is bool(said)


@pytest.mark.parametrize("provider", ["nerdctl", "finch", "nerdctl.lima"])
def test_what_nerdctl_runs_is_left_to_the_real_kind(provider: str) -> None:
    """After the call was found to be one; why is said."""
    meant = understand("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(meant, HandOver)
    assert provider in meant.why
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
def test_help_is_there_without_the_real_kind(line: str, words: str) -> None:
    """It names kind's flags, and whose they are now."""
    shown = understand(line)
    assert isinstance(shown, Help)
    assert not shown.error
    for part in (words, "--nodes A,B", "--quiet", "--verbosity", "--name", "imgload"):
        assert part in shown.text


def engine(folder: Path, kind: EngineKind, *containers: Container, at: str = "x") -> LocalEngine:
    endpoint = Endpoint(kind, f"unix://{folder}/{at}-{kind}.sock")
    return LocalEngine(folder, containers=containers, endpoint=endpoint)


def nodes(cluster: str, count: int = 1) -> list[Container]:
    return [container(f"{cluster}-worker{number}", cluster) for number in range(2, count + 2)]


def chosen(engines: list[LocalEngine], request: Request = LISTED) -> list[tuple[str, str]]:
    reachable: list[Engine] = [*engines]
    found = select(reachable, Kind(), request, request.clusters[0])
    return [(node.engine.name, node.name) for node in found]


def test_docker_comes_first_as_with_kind(tmp_path: Path) -> None:
    """A cluster of that name on Podman is meant when Docker has none."""
    podman = engine(tmp_path, "podman", *nodes("kind"))
    assert chosen([engine(tmp_path, "docker", *nodes("a")), podman]) == [("podman", "kind-worker2")]
    assert chosen([podman, engine(tmp_path, "docker", *nodes("kind"))]) == [
        ("docker", "kind-worker2")
    ]


def test_the_provider_alone_counts_where_one_is_set(tmp_path: Path) -> None:
    """The error tells who has such a cluster."""
    both = [engine(tmp_path, "docker", *nodes("kind")), engine(tmp_path, "podman", *nodes("a"))]
    assert chosen(both, Request(("kind",), engine="docker")) == [("docker", "kind-worker2")]
    with pytest.raises(
        ClusterNotFound, match=r'^no nodes found for cluster "kind" on podman'
    ) as no:
        chosen(both, Request(("kind",), engine="podman"))
    assert no.value.hint == "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
    with pytest.raises(EngineUnreachable, match="no podman answers"):
        chosen(both[:1], Request(("kind",), engine="podman"))


def test_a_cluster_has_exactly_the_name_given(tmp_path: Path) -> None:
    """kind knows no contexts, and no empty name."""
    there = [engine(tmp_path, "docker", *nodes("dev"))]
    for name in ("kind-dev", "", "de"):
        with pytest.raises(ClusterNotFound, match=f'no nodes found for cluster "{name}"'):
            chosen(there, Request((name,)))


def test_only_the_tools_own_clusters_count(tmp_path: Path) -> None:
    """k3d does not load into a cluster of kind's."""
    there = [engine(tmp_path, "docker", *nodes("kind"))]
    with pytest.raises(ClusterNotFound, match="available: none") as raised:
        select(there, K3d(), LISTED, "kind")
    assert raised.value.hint == "create one: k3d cluster create"


def test_two_clusters_of_one_engines_kind_are_no_guess(tmp_path: Path) -> None:
    """Rootful and rootless Docker, each with a cluster of the usual name."""
    two = [engine(tmp_path, "docker", *nodes("kind"), at=at) for at in "ab"]
    with pytest.raises(ClusterAmbiguous, match=r"a-docker\.sock and .*b-docker\.sock"):
        chosen(two)


def test_nodes_are_taken_in_the_order_given_and_once(tmp_path: Path) -> None:
    """One that is not there fails the call, as with kind; an empty list is all."""
    there = [engine(tmp_path, "docker", *nodes("kind", 3))]
    asked = Request(("kind",), nodes=("kind-worker4", "kind-worker2", "kind-worker4"))
    assert [name for _, name in chosen(there, asked)] == ["kind-worker4", "kind-worker2"]
    assert len(chosen(there, Request(("kind",), nodes=()))) == 3
    with pytest.raises(NodeNotFound, match=r'^unknown node: "x"'):
        chosen(there, Request(("kind",), nodes=("kind-worker2", "x")))


def results(*actions: str) -> Report:
    made = tuple(NodeResult(f"n{i}", action) for i, action in enumerate(actions))  # type: ignore[arg-type]
    name = "docker.io/library/app:dev"
    return Report((ImageResult(name, ID, "docker", Platform("linux", "amd64"), made),))


def test_a_load_is_told_in_kinds_words() -> None:
    """With the name as it was typed, and each thing once, though a part is sent again."""
    story = KindStory.of(["app:dev"])
    name = "docker.io/library/app:dev"
    sending = SendingStarted("n0", (name,), 10)
    lines = [
        line
        for event in (ImageFound(name, ID, "docker", 10), sending, sending)
        for line in story.tell(event)
    ]
    told = f'Image: "app:dev" with ID "{ID}"'
    assert lines == [f'{told} not yet present on node "n0", loading...']
    assert list(story.conclude(results("present", "present"))) == [
        f"{told} found to be already present on all nodes."
    ]
    assert list(story.conclude(results("present", "full"))) == []
    [tagged] = story.conclude(results("present", "tagged"))
    assert tagged == (
        f"Image with ID: {ID} already present on the node n1 but is missing the tag {name}."
        " re-tagging..."
    )


def test_of_archives_kind_says_nothing() -> None:
    """Unless it is asked to."""
    story = KindStory.of([])
    assert list(story.tell(SendingStarted("n0", ("app",), 10))) == []
    assert list(story.conclude(results("present"))) == []


def test_a_name_that_is_none_is_told_as_it_is() -> None:
    """It is refused when it is looked for, and an image ID has names that were not typed."""
    story = KindStory.of(["App:?", "sha256:abcd"])
    [line] = story.tell(SendingStarted("n0", ("docker.io/library/app:dev",), 10))
    assert line.startswith('Image: "docker.io/library/app:dev" with ID ""')
