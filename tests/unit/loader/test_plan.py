"""What is to be done about each image on each node."""

from typing import Any

import attrs
import pytest

from imgload.clusters.nodes.containerd import ContentStore
from imgload.clusters.nodes.proof import Proof, prove
from imgload.loader.plan import Plan, Step, decide, make_plan
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.platform import Platform
from imgload.sources.base import Image
from tests.unit.archives import NAME
from tests.unit.samples import BASE, NOTHING, holding, image, lacking

OTHER = "docker.io/library/other:v1"
SENT = {"delta", "full"}
WHOLE = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=None, absent=frozenset())


def test_decide_present_for_a_complete_image() -> None:
    """Without crictl on the node, the proof has no result of CRI."""
    step = decide(image(), "node", holding())
    assert (step.action, step.proof) == ("present", WHOLE)


def test_decide_uses_the_answer_of_cri_if_there_is_one() -> None:
    step = decide(image(), "node", holding(cri={NAME: "app"}))
    assert step.action == "present"
    assert step.proof is not None
    assert step.proof.cri is True


@pytest.mark.parametrize("what", ["cri", "cri's agreement", "cri's label"])
def test_decide_tagged_if_only_cri_lacks_the_image(what: str) -> None:
    """For example after containerd 1.7's transfer service; nothing is sent (containerd #9039)."""
    survey = lacking(holding(), what)
    assert prove(image(), survey).cri is False
    step = decide(image(), "node", survey)
    assert (step.action, step.tag_from) == ("tagged", NAME)


def test_the_answer_of_cri_overrides_a_label() -> None:
    survey = attrs.evolve(holding(cri={NAME: "app"}), not_in_cri=frozenset([NAME]))
    assert decide(image(), "node", survey).action == "present"


@pytest.mark.parametrize("what", ["name", "image_id", "config", "snapshot"])
def test_an_image_with_one_failed_check_is_not_present(what: str) -> None:
    """A name alone, or content that is not unpacked, is not an image (kind #2402, #3479)."""
    assert decide(image(), "node", lacking(holding(), what)).action in SENT


def test_decide_tagged_for_an_image_under_another_name() -> None:
    """Nothing is sent (minikube and kind do so, k3d does not)."""
    step = decide(image(), "node", holding("app", OTHER))
    assert (step.action, step.tag_from) == ("tagged", OTHER)


@pytest.mark.parametrize("what", ["config", "snapshot"])
def test_decide_does_not_tag_an_incomplete_image(what: str) -> None:
    """A second name would refer to an incomplete image too."""
    assert decide(image(), "node", lacking(holding("app", OTHER), what)).action in SENT


def test_a_name_of_another_image_is_replaced() -> None:
    """Same tag, old content (kind #696, minikube #16032)."""
    step = decide(image("new"), "node", holding("old"))
    assert (step.action, step.tag_from) == ("full", "")


def test_a_name_of_another_image_is_retagged_if_the_node_has_the_image() -> None:
    """A load of an earlier build sends nothing."""
    old, new = holding("old"), holding("new", OTHER)
    both = attrs.evolve(
        old,
        records={**old.records, **new.records},
        content=ContentStore(
            old.content.blobs | new.content.blobs, {**old.content.configs, **new.content.configs}
        ),
        snapshots=old.snapshots | new.snapshots,
        configs={**old.configs, **new.configs},
    )
    step = decide(image("new"), "node", both)
    assert (step.action, step.tag_from) == ("tagged", OTHER)


def test_an_image_of_unknown_id_is_sent() -> None:
    """It cannot be verified before its ID is known."""
    unknown = attrs.evolve(image(), image_id=None)
    assert decide(unknown, "node", holding()).action in SENT
    assert prove(unknown, holding()).image_id is False


def test_prove_compares_diff_ids() -> None:
    """The node's config is compared layer by layer."""
    other = attrs.evolve(image(), diff_ids=(Digest.of(b"else"),))
    assert prove(other, holding()).diff_ids is False


def test_an_image_without_layers_needs_no_snapshot() -> None:
    survey = holding()
    [config] = survey.configs.values()
    bare = attrs.evolve(config, diff_ids=())
    bare_survey = attrs.evolve(survey, configs={bare.digest: bare}, snapshots=frozenset())
    assert prove(attrs.evolve(image(), diff_ids=()), bare_survey).ok


def test_make_plan_decides_for_each_image_and_node() -> None:
    """One missing image does not send the others again (kind has one list of nodes for all)."""
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


def test_nodes_that_lack_the_same_images_share_a_group() -> None:
    """One save feeds all of them."""
    plan = make_plan([image()], {"a": NOTHING, "b": NOTHING, "c": holding()})
    assert plan.groups() == [((image(),), ("a", "b"))]


def test_images_of_different_sources_or_platforms_are_separate_groups() -> None:
    """One archive comes from one source and is imported for one platform."""
    images: list[Image] = [
        image("a", "x/a:1"),
        image("b", "x/b:1", source="podman"),
        attrs.evolve(image("c", "x/c:1"), platform=Platform("linux", "arm64")),
    ]
    groups = make_plan(images, {"n": NOTHING}).groups()
    assert groups == [((i,), ("n",)) for i in images]


def test_present_and_tagged_images_are_in_no_group() -> None:
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
def test_a_proof_names_the_failed_check(field: str, words: str) -> None:
    changes: dict[str, Any] = {field: False}
    proof = attrs.evolve(WHOLE, **changes)
    assert not proof.ok
    assert proof.missing() == [words]


@pytest.mark.parametrize("cri", [True, None])
def test_a_proof_without_failed_checks_is_ok(*, cri: bool | None) -> None:
    """Without crictl on the node, too."""
    proof = attrs.evolve(WHOLE, cri=cri)
    assert proof.ok
    assert proof.missing() == []


@pytest.mark.parametrize(
    ("what", "absent"),
    [("blob", frozenset([BASE])), ("layers", frozenset(image().diff_ids))],
)
def test_an_image_whose_layers_are_only_unpacked_is_partial(
    what: str, absent: frozenset[Digest]
) -> None:
    """Containers run, so that nothing is sent again unless the content must be complete."""
    survey = lacking(holding(), what)
    present = decide(image(), "node", survey)
    assert present.action == "present"
    assert present.proof is not None
    assert present.proof.layers == "partial"
    assert present.proof.absent == absent
    assert not prove(image(), survey, needs_layers=True).ok
    assert prove(image(), holding(), needs_layers=True).ok


def test_complete_sends_exactly_the_layers_without_a_blob() -> None:
    """A layer that another manifest stores in another form is not sent."""
    unpacked = frozenset(chain_ids(image().diff_ids))
    survey = attrs.evolve(lacking(holding(), "blob"), snapshots=unpacked)
    assert decide(image(), "node", survey, complete=True).missing == {BASE}
    manifest, blob = Digest.of(b"manifest"), Digest.of(b"compressed base")
    compressed = attrs.evolve(
        survey.content,
        blobs=survey.content.blobs | {blob},
        layers={**survey.content.layers, manifest: (blob,)},
        diff_ids={blob: BASE},
    )
    step = decide(image(), "node", attrs.evolve(survey, content=compressed), complete=True)
    assert step.action == "delta"
    assert not step.missing


def test_complete_sends_what_an_unchanged_manifest_demands() -> None:
    """Layers in another form do not suffice; without a manifest, the forms are unknown."""
    unpacked = frozenset(chain_ids(image().diff_ids))
    survey = attrs.evolve(holding(), snapshots=unpacked)
    step = decide(image(), "node", survey, keep_manifest=True, complete=True)
    assert step.action == "present"
    other = attrs.evolve(image(), manifest_digest=Digest.of(b"other"))
    step = decide(other, "node", survey, keep_manifest=True, complete=True)
    assert step.missing == set(other.diff_ids)


def test_complete_does_not_tag_a_partial_image() -> None:
    other = holding("app", OTHER)
    assert decide(image(), "node", other, complete=True).action == "tagged"
    assert decide(image(), "node", lacking(other, "blob"), complete=True).action in SENT


def test_the_content_of_an_image_without_layers_is_complete() -> None:
    survey = holding()
    [config], [manifest] = survey.configs.values(), survey.content.layers
    bare = attrs.evolve(config, diff_ids=())
    content = attrs.evolve(survey.content, layers={manifest: ()})
    bare_survey = attrs.evolve(survey, configs={bare.digest: bare}, content=content)
    assert prove(attrs.evolve(image(), diff_ids=()), bare_survey).layers == "complete"


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


def test_a_layer_on_another_parent_is_missing() -> None:
    """The diff ID alone does not identify it (OCI image spec, config.md#layer-chainid)."""
    assert missing((A, B), (C, B), (B,)) == {A, B}


def test_a_repeated_layer_is_missing_if_one_snapshot_is_missing() -> None:
    """Its content is sent once."""
    assert missing((A, B, A), (A, B)) == {A}


def test_decide_delta_if_a_node_has_some_layers() -> None:
    base = frozenset(chain_ids(image("new").diff_ids[:1]))
    survey = attrs.evolve(holding("old"), snapshots=base)
    assert decide(image("new"), "node", survey).action == "delta"
    assert decide(image("new"), "node", holding("old")).action == "full"
