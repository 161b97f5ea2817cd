"""Surveys of recorded, damaged and made-up output."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import CriAnswer, parse_snapshotter
from imgload.clusters.nodes.survey import (
    NodeTraits,
    Survey,
    SurveyQuery,
)
from imgload.core.errors import ImgloadError, NodeUnusable
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from tests.unit.archives import Image
from tests.unit.recordings import MYAPP, VERSIONS, recorded

DF = b"""Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda1         82043328 51203008  26627044      66% /var/lib/containerd
"""
CONFIG_ID = Digest("sha256", "a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4")
TRAITS = NodeTraits((2, 1), "overlayfs", Platform("linux", "amd64"), None)
SMALL = Image()
NO_KUBELET = Output(0, b"")
START = Output(0, b"123 2026-11-23 08:19:52.000\n")


def traits_of(version: str, machine: bytes = b"x86_64\n", free: bytes = DF) -> list[Output]:
    outputs = (recorded(version, "version"), recorded(version, "config"), machine, free)
    return [*(Output(0, stdout) for stdout in outputs), START, NO_KUBELET]


def state_of(version: str, *rest: Output) -> list[Output]:
    lists = [Output(0, recorded(version, what)) for what in ("images", "content", "snapshots")]
    return [*rest, *lists]


@pytest.mark.parametrize(("version", "parsed"), [("1.6", (1, 6)), ("1.7", (1, 7)), ("2.1", (2, 1))])
def test_read_traits_of_real_nodes(version: str, parsed: tuple[int, int]) -> None:
    """Version, CRI's snapshotter, platform and free space."""
    traits = NodeTraits.read(traits_of(version))
    assert traits == NodeTraits(parsed, "overlayfs", Platform("linux", "amd64"), 26627044 * 1024)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [(b"aarch64\n", "linux/arm64"), (b"armv7l\n", "linux/arm/v7"), (b"s390x\n", "linux/s390x")],
)
def test_read_traits_reads_the_nodes_platform(machine: bytes, platform: str) -> None:
    """Not that of the machine that imgload runs on."""
    assert str(NodeTraits.read(traits_of("2.1", machine)).platform) == platform


@pytest.mark.parametrize(
    "free",
    [
        b"",
        b"df: not found\n",
        b"Filesystem 1024-blocks Used Available Capacity Mounted on\noverlay - - - - /\n",
        b"Filesystem 1024-blocks Used Available Capacity Mounted on\nx 1 1 "
        + b"9" * 5000
        + b" 1% /",
    ],
)
def test_free_space_may_be_unknown(free: bytes) -> None:
    """It only costs a warning (kind #2108)."""
    assert NodeTraits.read(traits_of("2.1", free=free)).free is None


@pytest.mark.parametrize(
    ("row", "mib"),
    [
        (b"/dev/disk/by label/x 100 50 2048 50% /var/lib/containerd", 2),
        (b"overlay 100 50 0 100% /", 0),
        (b"tmpfs 1 1 1024 1% /var/lib/with 10 20 30 40% name", 1),
    ],
)
def test_free_space_is_the_fourth_column(row: bytes, mib: int) -> None:
    """In KiB, whatever the device's name."""
    free = b"Filesystem 1024-blocks Used Available Capacity Mounted on\n" + row + b"\n"
    assert NodeTraits.read(traits_of("2.1", free=free)).free == mib << 20


@pytest.mark.parametrize("config", [Output(1, b""), Output(0, b""), Output(0, b"[plugins")])
def test_an_unreadable_snapshotter_is_an_error(config: Output) -> None:
    """Pods cannot use an image unpacked for another one."""
    version, _, *rest = traits_of("2.1")
    with pytest.raises(NodeUnusable, match="snapshotter") as caught:
        NodeTraits.read([version, config, *rest], "docker exec n containerd config dump")
    assert "containerd config dump" in caught.value.hint


def test_a_containerd_that_does_not_answer_is_unusable() -> None:
    """An empty survey would send every image."""
    outputs = traits_of("2.1")
    with pytest.raises(NodeUnusable):
        NodeTraits.read([Output(1, b""), *outputs[1:]])


@pytest.mark.parametrize("failing", range(3))
def test_a_list_that_fails_makes_the_node_unusable(failing: int) -> None:
    """Images, content or snapshots."""
    outputs = state_of("2.1")
    outputs[failing] = attrs.evolve(outputs[failing], exit_status=1)
    with pytest.raises(NodeUnusable):
        Survey.read(SurveyQuery((), ()), TRAITS, outputs)


@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_a_real_node_has_its_image(version: str) -> None:
    """The name points to the config that is crictl's image ID."""
    answer = Output(0, recorded(version, "inspect"))
    survey = Survey.read(SurveyQuery((MYAPP,), ()), TRAITS, state_of(version, answer))
    assert survey.has(MYAPP, CONFIG_ID)
    assert not survey.has(MYAPP, Digest.of(b"another"))
    assert not survey.has("docker.io/library/absent:v9", CONFIG_ID)
    assert survey.cri == {MYAPP: CriAnswer(CONFIG_ID)}
    assert MYAPP in survey.names_of(CONFIG_ID)
    assert survey.names_of(Digest.of(b"another")) == []


def test_a_survey_without_crictl_has_no_answers() -> None:
    """And no denials."""
    survey = Survey.read(SurveyQuery((MYAPP,), ()), TRAITS, state_of("2.1", Output(127, b"")))
    assert survey.cri == {}


@pytest.mark.parametrize(
    "output",
    [
        Output(1, b""),
        Output(1, SMALL.config),
        Output(0, SMALL.config + b" "),
        Output(0, b"{}"),
        Output(0, b"not json"),
        Output(0, b""),
    ],
)
def test_a_config_with_another_digest_is_ignored(output: Output) -> None:
    """The digest is computed from the node's output."""
    question = SurveyQuery((), (SMALL.image_id,))
    assert Survey.read(question, TRAITS, state_of("2.1", output)).configs == {}


def test_a_config_is_read_back_unchanged() -> None:
    """Its diff IDs are compared later."""
    question = SurveyQuery((), (SMALL.image_id,))
    survey = Survey.read(question, TRAITS, state_of("2.1", Output(0, SMALL.config)))
    assert survey.configs[SMALL.image_id].raw == SMALL.config


def test_commands_and_outputs_have_the_same_order() -> None:
    """A config for each ID, CRI for each name, and three lists."""
    asked, lists = SurveyQuery(("a", "b"), (CONFIG_ID,)).commands("native")
    assert str(CONFIG_ID) in asked[0]
    assert [command[-1] for command in asked[1:]] == ["a", "b"]
    assert len(lists) == 3
    assert "native" in lists[2]
    assert len(NodeTraits.commands()) == len(traits_of("2.1"))


outputs = st.builds(Output, st.integers(0, 255), st.binary(max_size=200))
real = st.sampled_from(
    [
        Output(0, recorded(v, w))
        for v in VERSIONS
        for w in ("version", "config", "images", "content")
    ]
)


@given(st.lists(outputs | real, min_size=6, max_size=6))
def test_read_traits_raises_only_imgload_errors(answers: list[Output]) -> None:
    try:
        assert isinstance(NodeTraits.read(answers), NodeTraits)
    except ImgloadError:
        config = answers[1]
        assert answers[0].exit_status or config.exit_status or not parse_snapshotter(config.text)


@given(st.lists(outputs | real, min_size=5, max_size=5))
def test_read_state_raises_only_imgload_errors(answers: list[Output]) -> None:
    try:
        assert isinstance(Survey.read(SurveyQuery(("a",), (CONFIG_ID,)), TRAITS, answers), Survey)
    except ImgloadError:
        assert any(answer.exit_status for answer in answers[-3:])
