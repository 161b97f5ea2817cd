"""Carrying a plan out: tag, send, and prove what is on each node afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import attrs

from imgload.errors import EngineFailed, ImgloadError, NodeFull, NotProven
from imgload.events import Event, NodeDone, Note, SendingEnded, SendingStarted
from imgload.nodes import containerd
from imgload.nodes.node import Before, Node
from imgload.nodes.room import require_room
from imgload.nodes.survey import Question, Survey
from imgload.nodes.undo import undo, undo_tag
from imgload.oci.digest import Digest
from imgload.parallel import in_parallel, outcome
from imgload.plan import Action, Image, Plan, Proof, Step, missing_layers, prove
from imgload.report import ImageResult, NodeResult, Report
from imgload.sending import Sending, Sent, is_final
from imgload.sources.resolve import Located
from imgload.transports.choose import TransportOption
from imgload.transports.delta import DeltaIncomplete
from imgload.transports.lanes import remove_leftovers

PROOF_SECONDS = 20.0
"""How long CRI may take to hear of an image: containerd tells it by an event, and after a failure
of its own CRI puts further events of that name off for some seconds."""
_PROOF_PAUSE = 0.1
_FRESH_SECONDS = 1.0
"""How old a proof may be when the load ends."""
_Failure = tuple[Sequence[Image], Sequence[str], ImgloadError]
"""Images, names of nodes, and why the images could not be sent to the nodes."""


@attrs.define
class Transfer:
    """One load's work on the nodes; `images` and `results` grow as it goes.

    Args:
        nodes: by name.
        surveys: what each node had before.
        origins: where each image comes from, by its name on the nodes.
        on_event: told what happens, from several threads.
        option: the transport asked for.
        deep: whether what is proven is read again.

    """

    nodes: Mapping[str, Node]
    surveys: dict[str, Survey]
    origins: Mapping[str, Located]
    on_event: Callable[[Event], None]
    option: TransportOption = "auto"
    deep: bool = False
    images: dict[str, Image] = attrs.field(factory=dict)
    results: dict[tuple[str, str], NodeResult] = attrs.field(factory=dict)
    _read: dict[tuple[str, str], float] = attrs.field(factory=dict)
    """When the node was read for each result."""

    def carry_out(self, plan: Plan) -> None:
        """Do what is planned, and prove it."""
        remove_leftovers(self.nodes[name] for name in self.surveys)
        for step in plan.steps:
            if step.action == "present":
                result = NodeResult(step.node, "present", step.proof)
                self._settle(step.image, result, self.surveys[step.node].at)
        tagged = in_parallel([partial(self._tag, s) for s in plan.steps if s.action == "tagged"])
        untagged = [step for step in tagged if step]
        sent = [step for step in plan.steps if step.action in {"full", "delta"}]
        groups = Plan((*sent, *untagged)).groups()
        failed = [each for group in groups for each in self._failures(*group)]
        if failed and not any(result.ok for result in self.results.values()):
            raise failed[0][2]
        for failure in failed:
            self._settle_rest(*failure)
        self._read_again()

    def _read_again(self) -> None:
        """Read nodes again whose proof has aged: another load may have taken a name since."""
        late = time.monotonic() - _FRESH_SECONDS
        aged: dict[str, list[Image]] = {}
        for (name, node), result in self.results.items():
            if result.ok and self._read[name, node] < late:
                aged.setdefault(node, []).append(self.images[name])
        in_parallel([partial(self._confirm, self.nodes[n], images) for n, images in aged.items()])

    def _confirm(self, node: Node, images: Sequence[Image]) -> None:
        answer = outcome(partial(node.survey, Question.about(images)))
        for image in images:
            proof = prove(image, answer) if isinstance(answer, Survey) else None
            error = answer if isinstance(answer, ImgloadError) else _refusal(image, node, proof)
            if error:
                result = self.results[image.name, node.name]
                self._settle(image, attrs.evolve(result, proof=proof, error=error))

    def _failures(self, images: Sequence[Image], names: Sequence[str]) -> list[_Failure]:
        """Send a group, image by image where its engine refuses to save or push them together.

        Returns the images that failed on nodes, with the error.
        """
        error = self._failure_of(images, names)
        if error is None:
            return []
        targets = list(dict.fromkeys(image.target for image in images))
        if len(targets) == 1 or not (isinstance(error, EngineFailed) and error.refused):
            return [(images, names, error)]
        self.on_event(Note(f"sending the images one by one: {error.message}"))
        failures: list[_Failure] = []
        for target in targets:
            alone = [image for image in images if image.target == target]
            rest = [name for name in names if (alone[0].name, name) not in self.results]
            failures += self._failures(alone, rest) if rest else []
        return failures

    def _failure_of(self, images: Sequence[Image], names: Sequence[str]) -> ImgloadError | None:
        """Send a group; returns why its source failed, after which the others are sent still."""
        try:
            self._send(images, [self.nodes[name] for name in names])
        except ImgloadError as error:
            return error
        return None

    def _settle_rest(
        self, images: Sequence[Image], names: Sequence[str], error: ImgloadError
    ) -> None:
        for image, name in product(images, names):
            if (image.name, name) not in self.results:
                self._settle(image, NodeResult(name, None, error=error))

    def pretend(self, plan: Plan) -> None:
        """Settle every step as planned; nothing is done."""
        for step in plan.steps:
            size = self._missing_bytes(step) if step.action in {"delta", "full"} else 0
            result = NodeResult(step.node, step.action, step.proof, bytes_missing=size)
            self._settle(step.image, result)

    def _missing_bytes(self, step: Step) -> int:
        sending = self._sending([step.image])
        return sending.missing_bytes([self.nodes[step.node]])

    def refuse(self, images: Sequence[Image], errors: Mapping[str, ImgloadError]) -> None:
        """Settle the nodes that could not be surveyed."""
        for image in images:
            for node, error in errors.items():
                self._settle(image, NodeResult(node, None, error=error))

    def report(self, nodes: Sequence[str], *, dry_run: bool) -> Report:
        """Return what happened, the images and nodes in the order they were asked for."""
        rows = [
            ImageResult(
                image.name,
                image.image_id,
                image.source,
                image.platform,
                tuple(self.results[name, node] for node in nodes),
            )
            for name in self.origins
            for image in [self.images[name]]
        ]
        return Report(tuple(rows), dry_run)

    def _settle(self, image: Image, result: NodeResult, read: float | None = None) -> None:
        """Note a result, and when the node was read for it; None for just now."""
        if self.deep:
            from imgload.rereading import deepened  # noqa: PLC0415 - start-up

            result = deepened(self.nodes[result.node], image.name, result)
        self.images[image.name] = image
        self.results[image.name, result.node] = result
        self._read[image.name, result.node] = time.monotonic() if read is None else read
        self.on_event(NodeDone(image.name, result))

    def _tag(self, step: Step) -> Step | None:
        """Tag an image; returns how to send it where the node has lost it since its survey."""
        start = time.monotonic()
        node, before = self.nodes[step.node], Before()
        target = self.surveys[step.node].records[step.tag_from]
        try:
            command = _tag_command(step, target, node)
            survey = node.rename(command, Question.about([step.image]), before)
            proof = prove(step.image, survey)
            if not proof.ok:
                proof = self._prove(node, [step.image])[step.image.name]
            if not (proof.ok or proof.awaits_cri):
                return self._lost(step, survey)
            error = _refusal(step.image, node, proof)
        except ImgloadError as failure:
            proof, error = None, failure
        if error and step.tag_from != step.image.name:
            undo_tag(node, self.surveys[step.node], step.image, target, before)
        seconds = time.monotonic() - start
        result = NodeResult(node.name, "tagged", proof, seconds=seconds, error=error)
        self._settle(step.image, self._told(step.image, result))
        return None

    def _lost(self, step: Step, survey: Survey) -> Step:
        before = self.surveys[step.node]
        now = attrs.evolve(before, content=survey.content, snapshots=survey.snapshots)
        self.surveys[step.node] = now
        return Step(step.image, step.node, "full")

    def _send(self, images: Sequence[Image], nodes: Sequence[Node]) -> None:
        start = time.monotonic()
        sending = self._sending(images)
        if send := sending.partly(nodes):
            self._announce(images, nodes, sending.missing_bytes(nodes))
            nodes = self._attempt(sending, send, nodes, start)
        size = sum({image.target: image.size for image in images}.values())
        nodes = list(self._with_room(images, nodes, size))
        if nodes:
            self._announce(images, nodes, size)
            sent = sending.by_archive(nodes)
            again = [node for node in nodes if self._restarted(node, sent)]
            done = [node for node in nodes if node not in again]
            in_parallel([partial(self._finish, node, sent, start) for node in done])
            self._remember(sending, sent)
            if again:
                sent = sending.by_archive(again)
                in_parallel([partial(self._finish, node, sent, start) for node in again])
                self._remember(sending, sent)

    def _restarted(self, node: Node, sent: Sent) -> bool:
        """Whether containerd unpacked for the snapshotter of a configuration it no longer has."""
        now, before = sent.deliveries[node.name].survey, self.surveys[node.name]
        return now is not None and now.traits.snapshotter != before.traits.snapshotter

    def _sending(self, images: Sequence[Image]) -> Sending:
        source = self.origins[images[0].name][0]
        found = {image: source.identify(self.origins[image.name][1]) for image in images}
        return Sending(source, found, self.surveys, self.option, self.on_event)

    def _announce(self, images: Sequence[Image], nodes: Sequence[Node], size: int) -> None:
        for node in nodes:
            self.on_event(SendingStarted(node.name, tuple(i.name for i in images), size))

    def _attempt(
        self, sending: Sending, send: Callable[[], Sent], nodes: Sequence[Node], start: float
    ) -> Sequence[Node]:
        """Send what is missing; return the nodes that need the whole after all."""
        try:
            sent = send()
        except DeltaIncomplete as error:
            self.on_event(Note(f"sending the images whole, since the push failed: {error.message}"))
            return nodes
        attempts = [partial(self._finish_part, node, sent, start) for node in nodes]
        rest = [n for n, done in zip(nodes, in_parallel(attempts), strict=True) if not done]
        self._remember(sending, sent)
        return rest

    def _remember(self, sending: Sending, sent: Sent) -> None:
        """Remember what was sent, once every image is proven on a node: nothing else verifies it.

        Which layer a compressed blob is, the node finds out when it unpacks it.
        """
        proven = {name for (name, _), result in self.results.items() if result.ok}
        if proven.issuperset(image.name for image in sent.images):
            sending.remember(sent)

    def _finish_part(self, node: Node, sent: Sent, start: float) -> bool:
        proofs, failure = self._read_back(node, sent)
        if is_final(failure) and all(proof.ok or proof.awaits_cri for proof in proofs.values()):
            self._conclude(node, sent, proofs, failure, start)
            return True
        self._undo(node, sent.images)
        self.on_event(Note(f"{node.name} did not take what was missing: sending it whole"))
        return False

    def _with_room(
        self, images: Sequence[Image], nodes: Sequence[Node], needed: int
    ) -> Iterator[Node]:
        """Yield the nodes that can hold the images' content; it is needed beside the snapshots."""
        for node in nodes:
            try:
                require_room(node, self.surveys[node.name].traits.free, needed)
            except NodeFull as error:
                for image in images:
                    self._settle(image, NodeResult(node.name, "full", error=error))
            else:
                yield node

    def _finish(self, node: Node, sent: Sent, start: float) -> None:
        self._conclude(node, sent, *self._read_back(node, sent), start)

    def _conclude(
        self,
        node: Node,
        sent: Sent,
        proofs: Mapping[str, Proof],
        failure: ImgloadError | None,
        start: float,
    ) -> None:
        for image in sent.images:
            proof = proofs.get(image.name)
            error = failure or _refusal(image, node, proof)
            if error and not (proof and proof.awaits_cri):
                self._undo(node, [image])
            size = sent.sizes.get((node.name, image.name), sent.deliveries[node.name].bytes_sent)
            seconds = time.monotonic() - start
            action = self._action(image, node, sent)
            result = NodeResult(node.name, action, proof, size, seconds, error)
            survey = sent.deliveries[node.name].survey
            self._settle(image, self._told(image, result), survey.at if survey else None)

    def _action(self, image: Image, node: Node, sent: Sent) -> Action:
        missing = missing_layers(image.diff_ids, [self.surveys[node.name].snapshots])
        return "delta" if sent.partly and len(missing) < len(image.diff_ids) else "full"

    def _undo(self, node: Node, images: Sequence[Image]) -> None:
        for image in images:
            undo(node, self.surveys[node.name], image)

    def _read_back(self, node: Node, sent: Sent) -> tuple[dict[str, Proof], ImgloadError | None]:
        self.on_event(SendingEnded(node.name))
        delivery = sent.deliveries[node.name]
        if delivery.error:
            return {}, delivery.error
        if delivery.survey:
            proofs = {image.name: prove(image, delivery.survey) for image in sent.images}
            if all(proof.ok for proof in proofs.values()):
                return proofs, None
        try:
            node.mark(Question.about(sent.images).loaded)
            return self._prove(node, sent.images), None
        except ImgloadError as error:
            return {}, error

    def _prove(self, node: Node, images: Sequence[Image]) -> dict[str, Proof]:
        deadline = time.monotonic() + PROOF_SECONDS
        while True:
            survey = node.survey(Question.about(images))
            proofs = {image.name: prove(image, survey) for image in images}
            if all(p.ok for p in proofs.values()):
                return proofs
            if time.monotonic() > deadline:
                node.require_cri(survey, *proofs)
                return proofs
            if not all(p.ok or p.awaits_cri for p in proofs.values()):
                return proofs
            time.sleep(_PROOF_PAUSE)

    def _told(self, image: Image, result: NodeResult) -> NodeResult:
        """Add to a result which other image had the name before."""
        survey = self.surveys[result.node]
        target = survey.records.get(image.name)
        before = survey.content.configs_under(target) if target else frozenset()
        others = before - {image.image_id}
        return attrs.evolve(result, replaced=min(others)) if others and result.ok else result


def _tag_command(step: Step, target: Digest, node: Node) -> tuple[str, ...]:
    if step.tag_from == step.image.name:
        return containerd.notice_command(step.image.name)
    ctr = node.spelled(containerd.CTR)
    return containerd.retag_command(ctr, step.tag_from, target, step.image.name)


def _refusal(image: Image, node: Node, proof: Proof | None) -> ImgloadError | None:
    if proof is not None and proof.ok:
        return None
    missing = ", ".join(proof.missing()) if proof else "everything"
    if proof and proof.awaits_cri:
        return NotProven(
            f"{node.name} has {image.name}, and its CRI does not know of it"
            f" after {PROOF_SECONDS:.0f} seconds",
            hint="load it again in a minute: containerd's CRI plugin tries again by itself",
        )
    return NotProven(
        f"{node.name} says it has imported {image.name}, and lacks {missing}",
        hint=f"{node.engine.name} exec {node.name} journalctl -u containerd",
    )
