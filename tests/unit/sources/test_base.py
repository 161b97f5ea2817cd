"""The transport that is the cheapest for what is missing."""

from typing import get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.engines.base import PushStyle
from imgload.oci.digest import Digest
from imgload.sources.base import Facts, TransportOption, choose

MIB = 1 << 20
LAYERS = tuple(Digest.of(name) for name in (b"base", b"libraries", b"app"))
FACTS = Facts(
    style="compressing",
    cut_off=False,
    identified=True,
    diff_ids=LAYERS,
    missing=[2],
    sizes=[100 * MIB, 50 * MIB, MIB],
    known_layers=(),
)
STYLES: tuple[PushStyle, ...] = get_args(PushStyle)
OPTIONS: tuple[TransportOption, ...] = get_args(TransportOption)


@pytest.mark.parametrize("style", [None, *STYLES])
@pytest.mark.parametrize("missing", [[], [2], [0, 1, 2]])
def test_archive_means_whole_images(style: PushStyle | None, missing: list[int]) -> None:
    """Whatever is known, and without comment: it was asked for."""
    choice = choose("archive", attrs.evolve(FACTS, style=style, missing=missing))
    assert (choice.push, choice.note) == (False, "")


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_no_engine_cannot_push(option: TransportOption) -> None:
    """An archive is sent as it is."""
    assert not choose(option, attrs.evolve(FACTS, style=None)).push


@pytest.mark.parametrize("option", ["auto", "delta"])
def test_an_engine_that_cannot_reach_us_saves_and_the_user_is_told(
    option: TransportOption,
) -> None:
    """Docker Desktop's daemon is in a VM: our loopback is not its."""
    choice = choose(option, attrs.evolve(FACTS, style="stored", cut_off=True))
    assert not choice.push
    assert "whole images" in choice.note


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (attrs.evolve(FACTS, style="stored", identified=False), "image ID is not known"),
        (attrs.evolve(FACTS, style=None), "without a name"),
    ],
)
def test_an_image_that_cannot_be_pushed_is_saved(facts: Facts, why: str) -> None:
    """A push is checked against its image ID, and takes a name; said where a push was asked for."""
    auto, asked = choose("auto", facts), choose("delta", facts)
    assert (auto.push, auto.note) == (False, "")
    assert not asked.push
    assert why in asked.note


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("missing", [[], [2], [0, 1, 2]])
def test_delta_means_delta(style: PushStyle, missing: list[int]) -> None:
    """Also where it is slower; what Docker's first push of layers costs is told."""
    choice = choose("delta", attrs.evolve(FACTS, style=style, missing=missing))
    assert choice.push
    assert bool(choice.note) is (style == "remembering")


@pytest.mark.parametrize(
    ("missing", "told"), [([2], "150 MiB of unchanged"), ([0, 1, 2], "151 MiB of lay")]
)
def test_the_price_of_a_first_load_is_that_of_all_layers(missing: list[int], told: str) -> None:
    """Paid at the first load, it is not paid at the first rebuild."""
    facts = attrs.evolve(FACTS, style="remembering", missing=missing)
    assert told in choose("delta", facts).note


@pytest.mark.parametrize("missing", [[], [0], [0, 1, 2]])
def test_stored_blobs_are_always_pushed(missing: list[int]) -> None:
    """Docker's containerd image store pushes eight times as fast as it saves."""
    assert choose("auto", attrs.evolve(FACTS, style="stored", missing=missing)).push


@pytest.mark.parametrize("style", ["compressing", "remembering"])
@pytest.mark.parametrize(
    ("missing", "delta"),
    [([], True), ([2], True), ([1], True), ([0], False), ([0, 2], False), ([0, 1, 2], False)],
)
def test_a_push_that_compresses_pays_while_little_is_missing(
    style: PushStyle, missing: list[int], *, delta: bool
) -> None:
    """By bytes, not by the number of layers."""
    assert choose("auto", attrs.evolve(FACTS, style=style, missing=missing)).push is delta


@pytest.mark.parametrize(
    ("sizes", "delta"), [([2, 1, 1], True), ([2, 1, 2], False), ([0, 0, 0], True)]
)
def test_half_is_the_border(sizes: list[int], *, delta: bool) -> None:
    """Exactly half is still pushed; layers without content weigh nothing."""
    facts = attrs.evolve(FACTS, sizes=sizes, missing=[1, 2])
    assert choose("auto", facts).push is delta


@pytest.mark.parametrize("sizes", [[], [1], [1, 1, 1, 1]])
def test_sizes_that_do_not_fit_count_for_nothing(sizes: list[int]) -> None:
    """An image's history has steps without layers; then only "everything is missing" counts."""
    facts = attrs.evolve(FACTS, sizes=sizes, style="remembering")
    assert choose("auto", attrs.evolve(facts, missing=[0, 1])).push
    assert not choose("auto", attrs.evolve(facts, missing=[0, 1, 2])).push
    assert choose("auto", facts).note == ""


def test_an_image_without_layers_is_saved() -> None:
    """There is nothing to leave out."""
    assert not choose("auto", attrs.evolve(FACTS, diff_ids=(), missing=(), sizes=())).push


def test_the_price_of_the_first_push_is_told() -> None:
    """Docker compresses what it has not pushed before, to learn that we have it."""
    choice = choose("auto", attrs.evolve(FACTS, style="remembering"))
    assert choice.push
    assert "150 MiB" in choice.note


@pytest.mark.parametrize(
    ("known_layers", "told"),
    [(LAYERS[:1], "50 MiB"), (LAYERS[1:2], "100 MiB"), (LAYERS[:2], ""), (LAYERS, "")],
)
def test_what_was_pushed_before_costs_nothing(known_layers: tuple[Digest, ...], told: str) -> None:
    """Its digest is remembered, by Docker and by us."""
    note = choose("auto", attrs.evolve(FACTS, style="remembering", known_layers=known_layers)).note
    assert (told in note) if told else not note


@pytest.mark.parametrize(("size", "told"), [(16 * MIB - 1, False), (16 * MIB, True)])
def test_a_small_price_is_not_worth_telling(size: int, *, told: bool) -> None:
    """A note at every load is read by nobody."""
    facts = attrs.evolve(FACTS, style="remembering", sizes=[size, 0, 1])
    assert bool(choose("auto", facts).note) is told


@pytest.mark.parametrize("style", ["compressing", "stored"])
def test_other_engines_have_no_such_price(style: PushStyle) -> None:
    """Podman asks by diff ID; the containerd store has its blobs compressed."""
    assert choose("auto", attrs.evolve(FACTS, style=style)).note == ""


@given(
    st.sampled_from(OPTIONS),
    st.sampled_from([None, *STYLES]),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 40), st.booleans(), st.booleans()), max_size=5),
)
def test_there_is_always_a_choice(
    option: TransportOption,
    style: PushStyle | None,
    cut_off: bool,  # noqa: FBT001
    identified: bool,  # noqa: FBT001
    layers: list[tuple[int, bool, bool]],
) -> None:
    """A delta needs an engine that reaches us, an image ID, and nobody who forbade it."""
    diff_ids = [Digest.of(str(i).encode()) for i in range(len(layers))]
    missing = [i for i, (_, lacks, _) in enumerate(layers) if lacks]
    known_layers = {d for d, (_, _, known) in zip(diff_ids, layers, strict=True) if known}
    sizes = [size for size, _, _ in layers]
    facts = Facts(style, cut_off, identified, diff_ids, missing, sizes, known_layers)
    choice = choose(option, facts)
    if choice.push:
        assert style is not None
        assert identified
        assert not cut_off
        assert option != "archive"
    elif option == "delta":
        assert style is None or cut_off or not identified
