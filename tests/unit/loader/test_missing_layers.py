"""Which layers nodes lack; part of the plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.loader.plan import decide
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.layers import layers_everywhere, missing_layers
from tests.unit.archives import NAME
from tests.unit.samples import NOTHING, holding, image

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
LISTS = st.lists(st.sampled_from([A, B, C]), max_size=5).map(tuple)


def unpacked(*stacks: tuple[Digest, ...]) -> frozenset[Digest]:
    """Return the snapshots of a node that has unpacked these stacks of layers."""
    return frozenset(chain for stack in stacks for chain in chain_ids(stack))


@pytest.mark.parametrize(
    ("nodes", "missing"),
    [
        ([unpacked((A, B, C))], []),
        ([unpacked((A, B))], [2]),
        ([unpacked()], [0, 1, 2]),
        ([unpacked((A, B, C)), unpacked((A,))], [1, 2]),
        ([unpacked((A, B)), unpacked((A, C))], [1, 2]),
        ([], []),
    ],
)
def test_what_one_node_lacks_is_missing(nodes: list[frozenset[Digest]], missing: list[int]) -> None:
    """One stream serves them all."""
    assert missing_layers((A, B, C), nodes) == missing


def test_a_layer_upon_another_parent_is_another_snapshot() -> None:
    """The diff ID alone says nothing (OCI image spec, config.md#layer-chainid)."""
    assert missing_layers((A, B), [unpacked((C, B), (B,))]) == [0, 1]


def test_a_layer_that_occurs_twice_is_needed_while_one_place_lacks_it() -> None:
    """Its content goes over once, for the place where it is not unpacked."""
    assert missing_layers((A, B, A), [unpacked((A, B))]) == [2]
    assert layers_everywhere((A, B, A), [unpacked((A, B))]) == {B}


@given(LISTS, st.lists(LISTS, max_size=3))
def test_a_layer_is_missing_or_everywhere(
    diff_ids: tuple[Digest, ...], stacks: list[tuple[Digest, ...]]
) -> None:
    """Never both, never neither; and what lies upon a missing layer is missing, too."""
    nodes = [unpacked(stack) for stack in stacks]
    missing = missing_layers(diff_ids, nodes)
    lacking = {diff_ids[place] for place in missing}
    assert layers_everywhere(diff_ids, nodes) == set(diff_ids) - lacking
    assert missing == list(range(len(diff_ids)))[len(diff_ids) - len(missing) :]


def test_a_node_that_has_the_base_needs_the_rest_only() -> None:
    """The images of the samples share their first layer; an empty node needs everything."""
    assert decide(image("new"), "node", holding("old", NAME)).action == "full"
    base = unpacked(image("new").diff_ids[:1])
    survey = holding("old", NAME)
    assert missing_layers(image("new").diff_ids, [survey.snapshots | base]) == [1]
    assert decide(image(), "node", NOTHING).action == "full"
