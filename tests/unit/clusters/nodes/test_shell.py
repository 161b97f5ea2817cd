"""No input from outside becomes shell text in a node.

This machine's sh runs every command, with programs that log their arguments; the scripts are the
same for all names, platforms and settings.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgload.clusters.nodes import base, containerd
from imgload.clusters.nodes.base import PreviousNames
from imgload.clusters.nodes.containerd import K3S
from imgload.clusters.nodes.crio import CrioNode
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.core.errors import ImgloadError, ReferenceInvalid, UsageError
from imgload.engines.base import Chunk, Container, ExecResult
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference
from imgload.tools.inventory.base import Inventory, NodeImage
from imgload.tools.inventory.runtimes import remove_images, take_inventory
from imgload.tools.remote_registry.configure import RegistryUrl, connect_node, disconnect_node
from tests.unit.fakes import LocalEngine
from tests.unit.samples import sourced

DIGEST = Digest.of(b"x")
ROW = f"app media/type {DIGEST} 1 linux/amd64 -"
CTR = f"""
{{ printf '%s\\0' "$@"; printf '\\n\\0'; }} >>"$LOG"
case "$*" in
  version) printf 'Server:\\n  Version:  v2.1.0\\n' ;;
  *"images ls"*) echo REF TYPE DIGEST; echo '{ROW}' ;;
  *) echo KEY ;;
esac
"""
CRICTL = """
{ printf '%s\\0' "$@"; printf '\\n\\0'; } >>"$LOG"
[ "$1" != pull ] || find "${CONFIG%/*}" -path "*/${2%%/*}/hosts.toml" -exec cat {} + |
    sed -n 's|^server = "\\(.*\\)"|failed to pull: Head \\1/v2/|p'
"""
"""Like CRI, names the address in the file for a registry in its error."""
PODMAN = f"""
{{ printf '%s\\0' "$@"; printf '\\n\\0'; }} >>"$LOG"
case "$*" in
  info*) echo '{{"store": {{"graphRoot": "/none", "graphDriverName": "overlay"}}}}' ;;
  "image inspect"*) echo {DIGEST.hex} ;;
esac
"""
PROGRAMS = {
    "ctr": CTR,
    "crictl": CRICTL,
    "containerd": 'cat "$CONFIG"',
    "sleep": ":",
    "podman": PODMAN,
}
FRAGMENTS = (
    *(
        "$(touch pwned)",
        "`touch pwned`",
        ";touch pwned;",
        "&&touch pwned",
        "|touch pwned",
        ">pwned",
    ),
    *(
        "\ntouch pwned\n",
        "'",
        '"',
        "\\",
        "${1}",
        "$1",
        "$@",
        "$IFS",
        "*",
        "~",
        "#",
        "!",
        "-",
        "--x",
    ),
    *(
        "%s",
        "%n",
        "{a,b}",
        "[a]",
        "?",
        "&",
        "(",
        ")",
        "<",
        "\r",
        "\t",
        "\x1b[2J",
        "é",
        "\N{SNOWMAN}",
    ),
)
HOSTILE = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4).filter(lambda t: "\0" not in t)),
    min_size=1,
    max_size=6,
).map("".join)


class Recording(LocalEngine):
    """Records commands, and runs them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PROGRAMS)
        self.ran: list[list[str]] = []

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        self.ran.append(list(argv))
        return super().exec(container, argv, stdin)

    @property
    def shell_text(self) -> set[str]:
        """Every line of the shell scripts, also of those within a batch, without the numbers."""
        scripts = (
            argv[place + 2]
            for argv in self.ran
            for place, word in enumerate(argv)
            if word == "sh" and argv[place + 1] == "-c"
        )
        return {_without_numbers(line) for script in scripts for line in script.splitlines()}


def _without_numbers(line: str) -> str:
    return re.sub(r"%s \d+ %d", "%s N %d", re.sub(r'("\$\{\d+\}" ?)+', "WORDS", line))


@attrs.frozen
class Words:
    """Input from the user, an engine, an archive, and a node's files."""

    name: str
    other: str
    platform: str
    snapshotter: str
    container: str
    folder: str


def words() -> st.SearchStrategy[Words]:
    return st.builds(Words, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)


@contextmanager
def somewhere(snapshotter: str, registries: str) -> Iterator[Path]:
    """Work in a folder of its own, which has a node's configuration."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        (folder / "work").mkdir()
        (folder / "config").write_text(config_with(snapshotter, f"{folder}/{registries}"))
        patch.setenv("LOG", f"{folder}/log")
        patch.setenv("CONFIG", f"{folder}/config")
        patch.setattr(base, "_FOLDERS", ".")
        patch.chdir(folder / "work")
        yield folder


def config_with(snapshotter: str, folder: str) -> str:
    section = 'plugins."io.containerd.cri.v1.images"'
    return (
        f"[{section}]\nsnapshotter = {json.dumps(snapshotter)}\n"
        f"[{section}.registry]\nconfig_path = {json.dumps(folder)}\n"
    )


def everything(given_: Words, folder: Path) -> Recording:
    """Run every operation of imgload in nodes."""
    engine = Recording(folder)
    container = Container(given_.container, given_.container, "running", {})
    platform = Platform(given_.platform, given_.platform)
    image = sourced(given_.name, DIGEST, (DIGEST,))
    question = SurveyQuery.about([image], loaded=True)
    for runtime in (None, K3S):
        node = Node(given_.container, engine, container)
        node.runtime = runtime or node.runtime
        for act in (
            lambda n: n.survey(question),
            lambda n: n.import_layout([b""], platform, question),
            lambda n: n.label(question.loaded),
            lambda n: n.tag(image, given_.other, DIGEST, PreviousNames()),
            lambda n: n.tag(image, given_.name, DIGEST, PreviousNames()),
            lambda n: n.run(["ctr", "images", "rm", "--", given_.other]),
            lambda n: n.rollback(image, n.survey(SurveyQuery((), ()))),
            lambda n: remove_images(n, [NodeImage(DIGEST, records=(given_.other,))], NOTHING),
            take_inventory,
            lambda n: n.import_by_copy([b""], platform, question),
            lambda n: connect_node(n, RegistryUrl.parse("http://127.0.0.1:1"), ["localhost:1"]),
            lambda n: disconnect_node(n, None),
        ):
            with suppress(ImgloadError):
                act(node)
    in_crio = CrioNode(given_.container, engine, container)
    for apply in (
        lambda n: n.survey(question),
        lambda n: n.import_layout([b"x"], platform, question),
        lambda n: n.pull(["http://127.0.0.1:1/v2/x"], question.names, platform, question),
        lambda n: n.label(question.loaded),
        lambda n: n.tag(image, given_.other, DIGEST, PreviousNames()),
        lambda n: n.rollback(image, n.survey(SurveyQuery((), ()))),
        lambda n: n.untag([given_.other]),
        lambda n: n.remove([given_.other]),
        lambda n: remove_images(n, [NodeImage(DIGEST, (given_.other,))], NOTHING),
    ):
        with suppress(ImgloadError):
            apply(in_crio)
    return engine


NOTHING = Inventory()


@cache
def usual_text() -> set[str]:
    plain = Words(*["plain"] * 6)
    with somewhere(plain.snapshotter, plain.folder) as folder:
        return everything(plain, folder).shell_text


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile=words())
def test_input_never_becomes_shell_text(hostile: Words) -> None:
    """Whatever the words are, shells get the same scripts, and no word runs."""
    with somewhere(hostile.snapshotter, hostile.folder) as folder:
        engine = everything(hostile, folder)
        called = (folder / "log").read_bytes().decode().split("\0")
        assert list((folder / "work").iterdir()) == []
    assert engine.shell_text <= usual_text()
    assert {hostile.name, hostile.other} <= set(called)


SAFE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*", re.ASCII)
_PLACES = ("{}app:v1", "a{}p:v1", "app{}:v1", "app:{}v1", "app:v{}1", "app:v1{}", "r.io/{}/app:v1")
PLACES: tuple[str, ...] = (
    *_PLACES,
    "{}r.io/app",
    "r{}.io/app",
    "r.io{}/app",
    "r.io:50{}00/app",
    f"app@sha256:{{}}{'0' * 63}",
)


@pytest.mark.parametrize("place", PLACES)
def test_each_character_is_plain_or_refused(place: str) -> None:
    """A shell gives no meaning to any character that an image's name may have."""
    for code in (*range(0x250), *range(0x2000, 0x2100), 0x3000, 0xFEFF, 0xFF0F, 0x1F600):
        with suppress(ReferenceInvalid):
            name = str(Reference.parse(place.format(chr(code))))
            assert SAFE.fullmatch(name), name
        with suppress(UsageError):
            platform = str(Platform.parse(place.format(chr(code)).replace(":", "")))
            assert SAFE.fullmatch(f"x{platform}"), platform


@given(HOSTILE)
def test_a_snapshotter_is_an_identifier_or_none(text: str) -> None:
    """As in containerd (pkg/identifiers), whatever a node's file has."""
    found = containerd.parse_snapshotter(config_with(text, "/x"))
    assert found is None or SAFE.fullmatch(found)
    assert containerd.parse_snapshotter(config_with("devmapper-2.x", "/x")) == "devmapper-2.x"
