"""Command lines by the rules of cobra and pflag, and those of kind and k3d with their messages.

The expectations are the results of the real k3d 5.9; tests/engine compares with the real kind.
"""

import os
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import UsageError
from imgload.loader.events import ImageFound, SendingStarted
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.dropins.tool import (
    K3D,
    KIND,
    Flag,
    HandOver,
    Help,
    K3dStory,
    KindStory,
    Request,
    find,
    parse,
    switch,
    to_int32,
    to_list,
)

SHARED = (Flag("verbosity", "v", to_int32), switch("quiet", "q"))
LEAF = (
    *SHARED,
    Flag("name", "n"),
    Flag("nodes", convert=to_list),
    Flag("cluster", "c", lambda text: [text]),
    switch("keep", "k"),
    switch("help", "h"),
)
COMMANDS = {
    (): SHARED,
    ("branch",): SHARED,
    ("branch", "leaf"): LEAF,
    ("branch", "alias"): LEAF,
}
LINE = st.lists(st.text(st.sampled_from("-=nvqkch,\"'a1 \n"), max_size=6), max_size=6)


def read(*arguments: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    return parse(LEAF, arguments)


def find_command(*arguments: str) -> tuple[str, list[str]]:
    path, rest = find(COMMANDS, arguments)
    return " ".join(path), rest


@pytest.mark.parametrize(
    ("arguments", "name", "rest"),
    [
        ([], "", []),
        (["branch", "leaf", "x"], "branch leaf", ["x"]),
        (["branch", "alias", "x"], "branch alias", ["x"]),
        (["-q", "branch", "-k", "leaf", "x"], "branch", ["-q", "-k", "leaf", "x"]),
        (["-v", "1", "branch", "--quiet", "leaf"], "branch leaf", ["-v", "1", "--quiet"]),
        (["-nx", "branch", "--name=branch", "leaf"], "branch leaf", ["-nx", "--name=branch"]),
        (["-n", "branch", "branch", "leaf"], "branch leaf", ["-n", "branch"]),
        (["branch", "leaf", "leaf"], "branch leaf", ["leaf"]),
        (["branch", "--", "leaf"], "branch", ["--", "leaf"]),
        (["", "branch"], "branch", [""]),
        (["leaf"], "", ["leaf"]),
        (["BRANCH"], "", ["BRANCH"]),
        (["branch leaf"], "", ["branch leaf"]),
        (["--help", "branch", "leaf"], "", ["--help", "branch", "leaf"]),
    ],
)
def test_find_skips_flags_and_their_values(
    arguments: list[str], name: str, rest: list[str]
) -> None:
    """An unknown flag counts as one with a value."""
    assert find_command(*arguments) == (name, rest)


@pytest.mark.parametrize(
    "arguments",
    [["-n", "a"], ["-na"], ["-n=a"], ["--name", "a"], ["--name=a"], ["-qn", "a"], ["-kqna"]],
)
def test_parse_accepts_all_spellings_of_a_value(arguments: list[str]) -> None:
    flags, words = read("x", *arguments, "y")
    assert (flags["name"], words) == ("a", ("x", "y"))


@pytest.mark.parametrize(
    ("arguments", "flag", "value"),
    [
        (["-n", "a", "-n", "b"], "name", "b"),
        (["-n="], "name", "="),
        (["-n", "--"], "name", "--"),
        (["--name", "-q"], "name", "-q"),
        (["--nodes", "a,b", "--nodes=c"], "nodes", ["a", "b", "c"]),
        (["--nodes", ""], "nodes", []),
        (["--nodes", "a,"], "nodes", ["a", ""]),
        (["--nodes", '"a,b",c'], "nodes", ["a,b", "c"]),
        (["--nodes", '"a""b"'], "nodes", ['a"b']),
        (["-c", "a,b", "-cc"], "cluster", ["a,b", "c"]),
        (["-q"], "quiet", True),
        (["-q", "--quiet=F"], "quiet", False),
        (["-q=F", "--quiet=1"], "quiet", True),
        (["-v", "-3"], "verbosity", -3),
        (["-v010"], "verbosity", 8),
        (["-v", "0x1F"], "verbosity", 31),
        (["-v=+0b11"], "verbosity", 3),
        (["-v1_000"], "verbosity", 1000),
        (["-v2147483647"], "verbosity", 2147483647),
    ],
)
def test_parse_converts_values_like_go(arguments: list[str], flag: str, value: object) -> None:
    """Numbers with a base, lists with commas and quotes; a value may look like a flag."""
    assert read(*arguments)[0][flag] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nam", "a"], "unknown flag: --nam"),
        (["--nam=a"], "unknown flag: --nam"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-qxn"], "unknown shorthand flag: 'x' in -xn"),
        (["-q="], "unknown shorthand flag: '=' in -="),
        (["--name"], "flag needs an argument: --name"),
        (["-qn"], "flag needs an argument: 'n' in -n"),
        (["--=a"], "bad flag syntax: --=a"),
        (["---name"], "bad flag syntax: ---name"),
        (["-q=no"], 'invalid argument "no" for "-q, --quiet" flag: '),
        (["-v", "a"], 'invalid argument "a" for "-v, --verbosity" flag: '),
        (["-v", " 1"], 'invalid argument " 1" for "-v, --verbosity" flag: '),
        (["-v", "1__0"], 'invalid argument "1__0" for "-v, --verbosity" flag: strconv'),
        (["-v", "0_"], 'invalid argument "0_" for "-v, --verbosity" flag: strconv'),
        (["-v", "09"], 'invalid argument "09" for "-v, --verbosity" flag: '),
        (["-v", "2147483648"], 'invalid argument "2147483648" for "-v, --verbosity" flag: '),
        (["--nodes", 'a"b'], 'invalid argument "a\\"b" for "--nodes" flag: '),
        (["--nodes", '"a'], 'invalid argument "\\"a" for "--nodes" flag: '),
    ],
)
def test_parse_fails_with_pflags_messages(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(*arguments)
    assert raised.value.message.startswith(message)


def test_parse_treats_all_arguments_after_two_dashes_as_words() -> None:
    assert read("-", "a", "--", "-q", "--")[1] == ("-", "a", "-q", "--")


def is_part(words: Iterable[str], line: Iterable[str]) -> bool:
    """Whether words stand in a line in this order."""
    rest = iter(line)
    return all(word in rest for word in words)


@given(LINE)
def test_parse_raises_no_other_error_and_invents_no_word(line: list[str]) -> None:
    path, rest = find(COMMANDS, line)
    assert len(path) + len(rest) == len(line)
    assert is_part(rest, line)
    with suppress(UsageError):
        assert is_part(read(*line)[1], line)
    with suppress(UsageError):
        assert is_part(parse([], line, unknown=Flag("unknown", alone="true"))[1], line)


VALUE = st.text(st.sampled_from("ab-=,"), min_size=1, max_size=3).filter(lambda v: v[0] != "=")
NAMED = VALUE.flatmap(
    lambda v: st.sampled_from([(v, *spelt) for spelt in (["-n", v], [f"-n={v}"], [f"-qn{v}"])])
)
WORD = st.text(st.sampled_from("ab="), max_size=3).map(lambda word: (None, word))


@given(st.lists(st.one_of(NAMED, WORD), max_size=6))
def test_parse_accepts_flags_and_words_in_any_order(pieces: list[tuple[str | None, ...]]) -> None:
    line = [text for piece in pieces for text in piece[1:] if text is not None]
    names = tuple(piece[0] for piece in pieces if piece[0] is not None)
    words = tuple(piece[1] for piece in pieces if piece[0] is None)
    flags, others = read(*line)
    assert (flags.get("name"), others) == (names[-1] if names else None, words)


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
    assert understand_kind(line) == Help()
    for part in (words, "--nodes A,B", "--quiet", "--verbosity", "--name", "imgload"):
        assert part in KIND.help


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
    story = KindStory(["app:dev"])
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
    story = KindStory([])
    assert list(story.tell(SendingStarted("n0", ("app",), 10))) == []
    assert list(story.conclude(results("present"))) == []


def test_kind_story_shows_full_names_of_images_requested_by_id() -> None:
    story = KindStory(["App:?", "sha256:abcd"])
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
    assert understand_k3d("images load -h") == Help()
    for flag in ("-c, --cluster", "-k, --keep-tarball", "-t, --keep-tools", "-m, --mode"):
        assert flag in K3D.help


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
