"""Command lines and messages of kind and k3d.

The expectations are the results of the real k3d 5.9; tests/engine compares with the real kind.
"""

import os
import shlex
from pathlib import Path

import pytest

from imgload.core.errors import UsageError
from imgload.loader.events import ImageFound, SendingStarted
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.dropins.tool import (
    K3D,
    KIND,
    HandOver,
    Help,
    K3dStory,
    KindStory,
    Request,
)

ID = Digest.of(b"config")


def understand_kind(line: str, **environ: str) -> Request | Help | HandOver:
    return KIND.understand(line.split(), environ)


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
def test_kind_hands_over_all_other_commands(line: str) -> None:
    assert understand_kind(line) == HandOver()


def test_kind_parses_images_without_duplicates() -> None:
    line = "load -v 2 docker-image app:dev db:1 app:dev --nodes a,b -n dev --nodes c"
    assert understand_kind(line) == Request(
        clusters=("dev",), images=("app:dev", "db:1"), nodes=("a", "b", "c"), verbosity=2
    )


def test_kind_parses_archives_with_kinds_advice() -> None:
    request = understand_kind("load image-archive a.tar - -n dev")
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
def test_kind_takes_the_cluster_from_flag_variable_or_default(
    line: str, variable: str, cluster: str
) -> None:
    """An empty name stays empty, and no cluster has it."""
    request = understand_kind(f"load docker-image app {line}", KIND_CLUSTER_NAME=variable)
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
def test_kind_takes_the_engine_from_the_provider_variable(
    provider: str, engine: str | None, note: str
) -> None:
    request = understand_kind("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(request, Request)
    assert request.engine == engine
    assert "".join(request.notes).startswith(note)
    assert bool(request.notes) is bool(note)


@pytest.mark.parametrize("provider", ["nerdctl", "finch", "nerdctl.lima"])
def test_kind_hands_over_clusters_on_nerdctl(provider: str) -> None:
    """Only if the command line is valid."""
    exec_real = understand_kind("load docker-image app", KIND_EXPERIMENTAL_PROVIDER=provider)
    assert isinstance(exec_real, HandOver)
    assert provider in exec_real.why
    with pytest.raises(UsageError):
        understand_kind("load docker-image", KIND_EXPERIMENTAL_PROVIDER=provider)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("load -h", "kind load docker-image IMAGE"),
        ("load docker-image -h", "IMAGE is"),
        ("load image-archive x --help", "ARCHIVE is"),
    ],
)
def test_kind_returns_help_with_kinds_flags(line: str, words: str) -> None:
    help_text = understand_kind(line)
    assert isinstance(help_text, Help)
    assert not help_text.error
    for part in (words, "--nodes A,B", "--quiet", "--verbosity", "--name", "imgload"):
        assert part in help_text.text


@pytest.mark.parametrize(
    ("arguments", "quiet"),
    [
        (["a", "-q"], True),
        (["--other", "x", "-q"], True),
        (["--other", "-q"], True),
        (["-zq"], True),
        (["-z=q"], False),
        (["-n", "-q"], True),
        (["--quiet=false"], False),
        (["--", "-q"], False),
        (["--help", "-q"], False),
        (["-qh"], True),
        (["--other"], False),
    ],
)
def test_is_quiet_ignores_all_other_flags(arguments: list[str], quiet: bool) -> None:  # noqa: FBT001
    """kind looks for ``--quiet`` before it knows any other flag."""
    assert KIND.is_quiet(arguments) is quiet


def results(*actions: str) -> Report:
    made = tuple(NodeResult(f"n{i}", action) for i, action in enumerate(actions))  # type: ignore[arg-type]
    name = "docker.io/library/app:dev"
    return Report((ImageResult(name, ID, "docker", Platform("linux", "amd64"), made),))


def test_kind_story_uses_kinds_messages_once_per_image() -> None:
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


def test_kind_story_has_no_messages_for_archives() -> None:
    story = KindStory.of([])
    assert list(story.tell(SendingStarted("n0", ("app",), 10))) == []
    assert list(story.conclude(results("present"))) == []


def test_kind_story_shows_full_names_of_images_requested_by_id() -> None:
    story = KindStory.of(["App:?", "sha256:abcd"])
    [line] = story.tell(SendingStarted("n0", ("docker.io/library/app:dev",), 10))
    assert line.startswith('Image: "docker.io/library/app:dev" with ID ""')


BOOL = "strconv.ParseBool: parsing"


def understand_k3d(line: str) -> Request | Help | HandOver:
    return K3D.understand(shlex.split(line), {})


@pytest.mark.parametrize(
    ("line", "cluster"),
    [
        ("image import x", "k3s-default"),
        ("image load x", "k3s-default"),
        ("images import x", "k3s-default"),
        ("images load x", "k3s-default"),
        ("image import x -c a", "a"),
        ("image import x -ca", "a"),
        ("image import x -c=a", "a"),
        ("image import -c= x", "="),
        ("image import x --cluster=a,b", "a,b"),
        ("-c a image import x", "a"),
        ("image --cluster a import x", "a"),
        ("image import -ktm direct x", "k3s-default"),
        ("image import -ktmauto x", "k3s-default"),
        ("image import x --keep-tarball --keep-tools --mode=tools-node", "k3s-default"),
        ("image import -- -c a", "k3s-default"),
        ("image import -k=false x", "k3s-default"),
        ("image import --keep-tools 0", "k3s-default"),
        ("image import -c -k x", "-k"),
        ("--verbose image import x", "k3s-default"),
        ("image --trace import x --timestamps", "k3s-default"),
        ("image import x --help=false", "k3s-default"),
    ],
)
def test_k3d_finds_the_cluster_in_any_position_and_spelling(line: str, cluster: str) -> None:
    request = understand_k3d(line)
    assert isinstance(request, Request)
    assert request.clusters == (cluster,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("image import", "requires at least 1 arg(s), only received 0"),
        ("image import -m x", "requires at least 1 arg(s), only received 0"),
        ("image import x -m", "flag needs an argument: 'm' in -m"),
        ("image import x --cluster", "flag needs an argument: --cluster"),
        ("image import --clus a x", "unknown flag: --clus"),
        ("image import -kz x", "unknown shorthand flag: 'z' in -z"),
        (
            "image import -k=maybe x",
            f'invalid argument "maybe" for "-k, --keep-tarball" flag: {BOOL}',
        ),
        ("image import x --verbose=a", f'invalid argument "a" for "--verbose" flag: {BOOL}'),
        ("image import x --version", "unknown flag: --version"),
        ("image import --=x x", "bad flag syntax: --=x"),
        ("image import x -k=", "unknown shorthand flag: '=' in -="),
        ("image import x --mode nope", "Unknown image loading mode 'nope'"),
    ],
)
def test_k3d_refuses_with_k3ds_messages(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        understand_k3d(line)
    assert raised.value.message.startswith(message)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "cluster list",
        "image",
        "image list",
        "image impor x",
        "Image import x",
        "--version image import x",
        "image -h import x",
        "-k image import x",
        "image -- import x",
        "help image import",
    ],
)
def test_k3d_hands_over_all_other_commands(line: str) -> None:
    assert understand_k3d(line) == HandOver()


def test_k3d_returns_help_with_k3ds_flags() -> None:
    help_text = understand_k3d("images load -h")
    assert isinstance(help_text, Help)
    assert not help_text.error
    for flag in ("-c, --cluster", "-k, --keep-tarball", "-t, --keep-tools", "-m, --mode"):
        assert flag in help_text.text


def test_k3d_prefers_a_file_to_an_image_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder does not count, and - is standard input only on its own."""
    monkeypatch.chdir(tmp_path)
    Path("app").write_bytes(b"")
    os.mkdir("db")  # noqa: PTH102 - as short as the rest
    mixed = understand_k3d("image import app db - app -c a -c b -c a")
    assert mixed == Request(("a", "b"), images=("db", "-"), archives=("app",))
    assert understand_k3d("image import -") == Request(("k3s-default",), piped=True)


@pytest.mark.parametrize(("flag", "verbosity"), [("--verbose", 1), ("--trace", 1), ("", 0)])
def test_k3d_verbose_shows_the_verification(flag: str, verbosity: int) -> None:
    request = understand_k3d(f"image import x {flag}")
    assert isinstance(request, Request)
    assert request.verbosity == verbosity


def test_k3d_story_uses_k3ds_messages() -> None:
    story = K3dStory()
    [line] = story.tell(SendingStarted("k3d-a-server-0", ("app:1", "db:1"), 1))
    assert line == "Importing images '[app:1 db:1]' into node 'k3d-a-server-0'..."
    assert list(story.conclude(Report(()))) == ["Successfully imported 0 image(s)"]
