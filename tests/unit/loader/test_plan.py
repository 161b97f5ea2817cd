"""What is to be done about each image on each node."""

import attrs
import pytest

from imgload.clusters.nodes.containerd import Content
from imgload.loader.plan import Plan, Step, decide, make_plan
from imgload.loader.proof import Proof, prove
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.platform import Platform
from imgload.sources.base import Image
from tests.unit.archives import NAME
from tests.unit.samples import NOTHING, holding, image, lacking

OTHER = "docker.io/library/other:v1"
SENT = {"delta", "full"}
WHOLE = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=None)


def test_an_image_that_is_whole_is_present() -> None:
    """With all proofs, and a node without crictl is not said to have confirmed it."""
    step = decide(image(), "node", holding())
    assert (step.action, step.proof) == ("present", WHOLE)


def test_cri_has_to_agree_where_it_can_be_asked() -> None:
    """Then the proof says so."""
    step = decide(image(), "node", holding(cri={NAME: "app"}))
    assert step.action == "present"
    assert step.proof is not None
    assert step.proof.cri is True


@pytest.mark.parametrize("what", ["cri", "cri's agreement", "cri's label"])
def test_an_image_that_only_cri_does_not_know_is_shown_to_it(what: str) -> None:
    """What containerd 1.7's transfer service imported, say; nothing is sent (containerd #9039)."""
    survey = lacking(holding(), what)
    assert prove(image(), survey).cri is False
    step = decide(image(), "node", survey)
    assert (step.action, step.tag_from) == ("tagged", NAME)


def test_cris_own_answer_counts_for_more_than_a_label() -> None:
    """crictl has said that the image is there."""
    survey = attrs.evolve(holding(cri={NAME: "app"}), unseen=frozenset([NAME]))
    assert decide(image(), "node", survey).action == "present"


@pytest.mark.parametrize("what", ["name", "image_id", "config", "snapshot"])
def test_what_lacks_one_proof_is_not_present(what: str) -> None:
    """A name alone, or content that is not unpacked, is not an image (kind #2402, #3479)."""
    assert decide(image(), "node", lacking(holding(), what)).action in SENT


def test_an_image_under_another_name_is_only_tagged() -> None:
    """Nothing is sent (peers: minikube and kind do so, k3d does not)."""
    step = decide(image(), "node", holding("app", OTHER))
    assert (step.action, step.tag_from) == ("tagged", OTHER)


@pytest.mark.parametrize("what", ["config", "snapshot"])
def test_an_image_that_is_not_whole_is_not_tagged(what: str) -> None:
    """A second name would only spread the damage."""
    assert decide(image(), "node", lacking(holding("app", OTHER), what)).action in SENT


def test_a_name_that_leads_to_another_image_is_replaced() -> None:
    """Same tag, old content (kind #696, minikube #16032)."""
    step = decide(image("new"), "node", holding("old"))
    assert (step.action, step.tag_from) == ("full", "")


def test_a_name_that_leads_to_another_image_is_tagged_over_when_the_image_is_there() -> None:
    """Going back to an earlier build costs nothing."""
    old, new = holding("old"), holding("new", OTHER)
    both = attrs.evolve(
        old,
        records={**old.records, **new.records},
        content=Content(
            old.content.blobs | new.content.blobs, {**old.content.configs, **new.content.configs}
        ),
        snapshots=old.snapshots | new.snapshots,
        configs={**old.configs, **new.configs},
    )
    step = decide(image("new"), "node", both)
    assert (step.action, step.tag_from) == ("tagged", OTHER)


def test_an_image_whose_id_is_not_known_is_sent() -> None:
    """It cannot be proven before it was read."""
    unknown = attrs.evolve(image(), image_id=None)
    assert decide(unknown, "node", holding()).action in SENT
    assert prove(unknown, holding()).image_id is False


def test_other_layers_under_the_same_id_are_no_proof() -> None:
    """The node's config is compared layer by layer."""
    other = attrs.evolve(image(), diff_ids=(Digest.of(b"else"),))
    assert prove(other, holding()).diff_ids is False


def test_an_image_without_layers_needs_no_snapshot() -> None:
    """There is nothing to unpack."""
    survey = holding()
    [config] = survey.configs.values()
    bare = attrs.evolve(config, diff_ids=())
    bare_survey = attrs.evolve(survey, configs={bare.digest: bare}, snapshots=frozenset())
    assert prove(attrs.evolve(image(), diff_ids=()), bare_survey).ok


def test_the_plan_is_made_for_each_image_and_node() -> None:
    """One missing image does not send the others again (peers 9: kind's one list of nodes)."""
    one, two = image("one", "x/one:1"), image("two", "x/two:1")
    surveys = {"a": holding("one", "x/one:1"), "b": holding("two", "x/two:1"), "c": NOTHING}
    plan = make_plan([one, two], surveys)
    actions = {(step.image.name, step.node): step.action for step in plan.steps}
    assert actions == {
        ("x/one:1", "a"): "present",
        ("x/two:1", "a"): "full",
        ("x/one:1", "b"): "full",
        ("x/two:1", "b"): "present",
        ("x/one:1", "c"): "full",
        ("x/two:1", "c"): "full",
    }
    assert set(plan.groups()) == {((two,), ("a",)), ((one,), ("b",)), ((one, two), ("c",))}


def test_nodes_that_lack_the_same_share_one_stream() -> None:
    """One save feeds them all."""
    plan = make_plan([image()], {"a": NOTHING, "b": NOTHING, "c": holding()})
    assert plan.groups() == [((image(),), ("a", "b"))]


def test_images_of_different_sources_or_platforms_are_sent_apart() -> None:
    """One archive comes from one source and is imported for one platform."""
    images: list[Image] = [
        image("a", "x/a:1"),
        image("b", "x/b:1", source="podman"),
        attrs.evolve(image("c", "x/c:1"), platform=Platform("linux", "arm64")),
    ]
    groups = make_plan(images, {"n": NOTHING}).groups()
    assert groups == [((i,), ("n",)) for i in images]


def test_nothing_to_send_is_no_group() -> None:
    """Present and tagged images stay out of it."""
    steps = [Step(image(), "a", "present"), Step(image(), "b", "tagged", tag_from="x")]
    assert Plan(tuple(steps)).groups() == []
    assert Plan(()).groups() == []


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("name", "its name"),
        ("image_id", "its image ID"),
        ("diff_ids", "its layers' diff IDs"),
        ("unpacked", "its unpacked snapshot"),
        ("cri", "CRI's confirmation"),
    ],
)
def test_a_proof_that_lacks_one_thing_says_which(field: str, words: str) -> None:
    """One false answer is enough to fail."""
    proof = attrs.evolve(WHOLE, **{field: False})
    assert not proof.ok
    assert proof.missing() == [words]


@pytest.mark.parametrize("cri", [True, None])
def test_a_whole_proof_lacks_nothing(*, cri: bool | None) -> None:
    """CRI's silence is no denial."""
    proof = attrs.evolve(WHOLE, cri=cri)
    assert proof.ok
    assert proof.missing() == []


A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


def missing(diff_ids: tuple[Digest, ...], *stacks: tuple[Digest, ...]) -> frozenset[Digest]:
    """Return what a node that has unpacked stacks of layers lacks of an image."""
    snapshots = frozenset(chain for stack in stacks for chain in chain_ids(stack))
    survey = attrs.evolve(NOTHING, snapshots=snapshots)
    return decide(attrs.evolve(image(), diff_ids=diff_ids), "node", survey).missing


def test_layers_without_a_snapshot_are_missing() -> None:
    """A layer below a present one is present as well."""
    assert missing((A, B, C)) == {A, B, C}
    assert missing((A, B, C), (A, B)) == {C}
    assert missing((A, B, C), (A, B, C)) == set()


def test_a_layer_upon_another_parent_is_missing() -> None:
    """The diff ID alone says nothing (OCI image spec, config.md#layer-chainid)."""
    assert missing((A, B), (C, B), (B,)) == {A, B}


def test_a_layer_that_occurs_twice_is_missing_while_one_place_lacks_it() -> None:
    """Its content is sent once, for the place where it is not unpacked."""
    assert missing((A, B, A), (A, B)) == {A}


def test_an_image_of_which_a_node_has_some_layers_is_a_delta() -> None:
    """Whatever is sent in the end."""
    base = frozenset(chain_ids(image("new").diff_ids[:1]))
    survey = attrs.evolve(holding("old"), snapshots=base)
    assert decide(image("new"), "node", survey).action == "delta"
    assert decide(image("new"), "node", holding("old")).action == "full"
