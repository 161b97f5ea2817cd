"""Command lines of k3d; the expectations are the results of the real k3d 5.9."""

import os
import shlex
from pathlib import Path

import pytest

from imgload.core.errors import UsageError
from imgload.loader.events import SendingStarted
from imgload.loader.report import Report
from imgload.tools.dropins.k3d import K3d, K3dStory
from imgload.tools.dropins.tool import HandOver, Help, Request

BOOL = "strconv.ParseBool: parsing"


def understand(line: str) -> Request | Help | HandOver:
    return K3d().understand(shlex.split(line), {})


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
def test_understand_finds_the_cluster_in_any_position_and_spelling(line: str, cluster: str) -> None:
    request = understand(line)
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
def test_understand_refuses_with_k3ds_messages(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        understand(line)
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
def test_understand_hands_over_all_other_commands(line: str) -> None:
    assert understand(line) == HandOver()


def test_understand_returns_help_with_k3ds_flags() -> None:
    help_text = understand("images load -h")
    assert isinstance(help_text, Help)
    assert not help_text.error
    for flag in ("-c, --cluster", "-k, --keep-tarball", "-t, --keep-tools", "-m, --mode"):
        assert flag in help_text.text


def test_understand_prefers_a_file_to_an_image_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder does not count, and - is standard input only on its own."""
    monkeypatch.chdir(tmp_path)
    Path("app").write_bytes(b"")
    os.mkdir("db")  # noqa: PTH102 - as short as the rest
    mixed = understand("image import app db - app -c a -c b -c a")
    assert mixed == Request(("a", "b"), images=("db", "-"), archives=("app",))
    assert understand("image import -") == Request(("k3s-default",), piped=True)


@pytest.mark.parametrize(("flag", "verbosity"), [("--verbose", 1), ("--trace", 1), ("", 0)])
def test_verbose_shows_the_verification(flag: str, verbosity: int) -> None:
    request = understand(f"image import x {flag}")
    assert isinstance(request, Request)
    assert request.verbosity == verbosity


def test_story_uses_k3ds_messages() -> None:
    story = K3dStory()
    [line] = story.tell(SendingStarted("k3d-a-server-0", ("app:1", "db:1"), 1))
    assert line == "Importing images '[app:1 db:1]' into node 'k3d-a-server-0'..."
    assert list(story.conclude(Report(()))) == ["Successfully imported 0 image(s)"]
