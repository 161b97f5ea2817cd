"""Executes a plan: tags and sends images, and verifies each node afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import attrs

from imgload.clusters.nodes.base import NodeRuntime, PreviousNames, remove_leftovers
from imgload.clusters.nodes.proof import Proof, prove
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core import trace
from imgload.core.errors import (
    ArchiveInvalid,
    EngineFailed,
    ImgloadError,
    ImportFailed,
    NodeFull,
    NotVerified,
    SourceError,
)
from imgload.core.parallel import in_parallel, result_or_error
from imgload.loader.events import Event, NodeDone, Note, SendingEnded, SendingStarted
from imgload.loader.plan import Plan, Step, not_unpacked, send_step
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.loader.send import Sending, Sent, is_final
from imgload.oci.digest import Digest
from imgload.registry.blob_store import StoreFull
from imgload.sources.base import Image, TransportOption
from imgload.sources.push import PushIncomplete
from imgload.transports.base import Transport
from imgload.transports.imports import ImportTransport
from imgload.transports.pull import PullTransport

PROOF_SECONDS = 20.0
"""Maximum time until CRI knows an image: containerd notifies it by an event, and after a
failure CRI delays further events of that name for some seconds."""
_PROOF_PAUSE = 0.1
_FRESH_SECONDS = 1.0
"""Maximum age of a verification at the end of the load."""
_SENT = {"full", "delta"}
_Failure = tuple[Sequence[Image], Sequence[str], ImgloadError]
"""Images, names of nodes, and why the images could not be sent to the nodes."""


@attrs.define(eq=False, repr=False)
class Executor:
    """Executes the plan of one load; `nodes`, `surveys` and `images` are by name.

    `surveys` are those before the load. `images` change when a transfer determines their IDs.
    `unusable` are the images that are reported with their errors.
    """

    nodes: Mapping[str, NodeRuntime]
    surveys: dict[str, Survey]
    images: dict[str, Image]
    on_event: Callable[[Event], None]
    option: TransportOption = "auto"
    deep: bool = False
    files: bool = False
    contents: bool = False
    keep_manifest: bool = False
    discard_layers: bool = False
    complete: bool = False
    pin: bool = False
    transport: Transport | None = None
    unusable: Sequence[Image] = ()
    steps: dict[tuple[str, str], Step] = attrs.field(factory=dict)
    results: dict[tuple[str, str], NodeResult] = attrs.field(factory=dict)
    _verified_at: dict[tuple[str, str], float] = attrs.field(factory=dict)
    _pinned: set[str] = attrs.field(factory=set)
    """The names of the nodes whose images must be pinned."""

    def run(self, plan: Plan) -> None:
        """Execute the plan, and verify the nodes."""
        self.steps = {(step.image.name, step.node): step for step in plan.steps}
        remove_leftovers(self.nodes[name] for name in self.surveys)
        for step in plan.steps:
            if step.action == "present":
                result = NodeResult(step.node, "present", step.proof)
                self._record(step.image, result, self.surveys[step.node])
        tagged = in_parallel([partial(self._tag, s) for s in plan.steps if s.action == "tagged"])
        not_tagged = [step for step in tagged if step]
        to_send = [step for step in plan.steps if step.action in _SENT]
        steps, failures = _split_available((*to_send, *not_tagged))
        for group in Plan(steps).groups():
            failures += self._send_group(*group)
        if failures and not any(result.ok for result in self.results.values()):
            raise failures[0][2]
        self._record_failures(failures)
        if self.discard_layers:
            in_parallel([partial(self._discard, node) for node in self.nodes.values()])
        if self.pin:
            in_parallel([partial(self._pin, node) for node in self.nodes.values()])
        self._verify_again()
        if self.files or self.contents:
            self._verify_files()

    def dry_run(self, plan: Plan) -> None:
        """Record every step as planned; nothing is changed."""
        self.steps = {(step.image.name, step.node): step for step in plan.steps}
        steps, failures = _split_available(plan.steps)
        self._record_failures(failures)
        for step in steps:
            size = 0
            if step.action in _SENT:
                size = self._sending([step.image]).missing_bytes([self.nodes[step.node]])
            result = NodeResult(step.node, step.action, step.proof, bytes_missing=size)
            self._record(step.image, result)

    def _record_failures(self, failures: Sequence[_Failure]) -> None:
        for images, nodes, error in failures:
            for image, node in product(images, nodes):
                if (image.name, node) not in self.results:
                    self._record(image, NodeResult(node, None, error=error))

    def mark_unreachable(self, images: Sequence[Image], errors: Mapping[str, ImgloadError]) -> None:
        """Record the errors of nodes that could not be surveyed."""
        for image, (node, error) in product(images, errors.items()):
            self._record(image, NodeResult(node, None, error=error))

    def report(self, nodes: Sequence[str], *, dry_run: bool) -> Report:
        """Return the results, with images and nodes in the requested order."""
        rows = [
            ImageResult(
                image.name,
                image.image_id,
                image.source,
                image.platform,
                tuple(self.results[name, node] for node in nodes),
            )
            for name, image in self.images.items()
        ]
        rows += [
            ImageResult(
                image.name,
                None,
                image.source,
                image.platform,
                tuple(NodeResult(node, None, error=image.error) for node in nodes),
            )
            for image in self.unusable
        ]
        return Report(tuple(rows), dry_run)

    def _record(self, image: Image, result: NodeResult, survey: Survey | None = None) -> None:
        """Record a result, and the survey that verified it; None if that was made just now."""
        if self.deep:
            from imgload.loader.checksums import verify_blobs  # noqa: PLC0415 - start-up

            result = verify_blobs(self.nodes[result.node], image.name, result)
        key = image.name, result.node
        self.images[image.name] = image
        self.results[key] = result
        self._verified_at[key] = survey.at if survey else time.monotonic()
        self.on_event(NodeDone(image.name, result))
        traits = (survey or self.surveys[result.node]).traits if result.ok else None
        node = self.nodes[result.node]
        for note in node.kubelet_notes(traits, image.name, image.image_id) if traits else ():
            self.on_event(Note(note))

    def _discard(self, node: NodeRuntime) -> None:
        """Remove the layers of the loaded images, which are verified again afterwards."""
        try:
            if names := self._require_new_proofs(node):
                node.discard_layers(names)
        except ImgloadError as error:
            self.on_event(Note(f"{node.name} keeps the layers: {error.message}"))

    def _pin(self, node: NodeRuntime) -> None:
        """Pin the loaded images, which are verified again afterwards."""
        names = self._require_new_proofs(node)
        if names and not node.pins_images:
            text = f"{node.name} does not pin {', '.join(names)}: {node.pin_requirement}"
            self.on_event(Note(f"{text}; when the disk is full, the kubelet may remove them"))
        elif names:
            self._pinned.add(node.name)
            error = result_or_error(partial(node.pin, names))
            for name in names if error else ():
                result = attrs.evolve(self.results[name, node.name], error=error)
                self._record(self.images[name], result)

    def _require_new_proofs(self, node: NodeRuntime) -> list[str]:
        """Have the loaded images of a node verified again, and return their names."""
        loaded = [key for key, r in self.results.items() if key[1] == node.name and r.ok]
        self._verified_at |= dict.fromkeys(loaded, -_FRESH_SECONDS)
        return [name for name, _ in loaded]

    def _verify_again(self) -> None:
        """Verify nodes again if that was some time ago: another load may have changed a name."""
        oldest = time.monotonic() - _FRESH_SECONDS
        aged: dict[str, list[Image]] = {}
        for (name, node), result in self.results.items():
            if result.ok and self._verified_at[name, node] < oldest:
                aged.setdefault(node, []).append(self.images[name])
        in_parallel([partial(self._confirm, self.nodes[n], images) for n, images in aged.items()])

    def _confirm(self, node: NodeRuntime, images: Sequence[Image]) -> None:
        proofs = result_or_error(partial(self._await_proofs, node, images))
        for image in images:
            failure = proofs if isinstance(proofs, ImgloadError) else None
            proof = None if isinstance(proofs, ImgloadError) else proofs[image.name]
            error = failure or _refusal(image, node, proof)
            result = self.results[image.name, node.name]
            if error:
                self._record(image, attrs.evolve(result, proof=proof, error=error))
            elif proof and result.proof:
                proof = attrs.evolve(proof, content=result.proof.content)
                self.results[image.name, node.name] = attrs.evolve(result, proof=proof)

    def _verify_files(self) -> None:
        from imgload.loader.files import FileCheck  # noqa: PLC0415 - start-up

        check = FileCheck(self.nodes, self.surveys, self.contents)
        checked = [(self.images[name], result) for (name, _), result in self.results.items()]
        for image, result in check.run(checked):
            self.results[image.name, result.node] = result
            if not result.ok:
                self.on_event(NodeDone(image.name, result))

    def _prove(self, image: Image, survey: Survey, node: str) -> Proof:
        needs_pin = node in self._pinned
        return prove(image, survey, needs_layers=self.complete, needs_pin=needs_pin)

    def _tag(self, step: Step) -> Step | None:
        """Tag an image; return the step that sends it if the node has lost it since the survey."""
        start = time.monotonic()
        image, node, before = step.image, self.nodes[step.node], PreviousNames()
        surveyed = self.surveys[step.node]
        target = surveyed.records[step.tag_from]
        try:
            survey = node.tag(image, step.tag_from, target, before)
            proof = self._prove(image, survey, node.name)
            if not proof.ok:
                proof = self._await_proofs(node, [image])[image.name]
            if not (proof.ok or proof.cri_pending):
                now = attrs.evolve(surveyed, content=survey.content, snapshots=survey.snapshots)
                self.surveys[step.node] = now
                keep, complete = self.keep_manifest, self.complete
                step = send_step(image, step.node, now, keep_manifest=keep, complete=complete)
                self.steps[image.name, step.node] = step
                return step
            error = _refusal(image, node, proof)
        except ImgloadError as failure:
            proof, error = None, failure
        if error and step.tag_from != image.name:
            node.rollback(image, self.surveys[step.node], target, before)
        seconds = time.monotonic() - start
        result = NodeResult(node.name, "tagged", proof, seconds=seconds, error=error)
        self._record(image, self._with_replaced(image, result, before))
        return None

    def _send_group(self, images: Sequence[Image], names: Sequence[str]) -> list[_Failure]:
        """Send a group; if its source cannot provide it, or a node refuses it, send image by image.

        A failure of the source does not stop the other images, so it is returned.
        """
        error = result_or_error(partial(self._send, images, [self.nodes[name] for name in names]))
        if error is None and all((images[0].name, name) in self.results for name in names):
            return []
        targets = list(dict.fromkeys(image.target for image in images))
        refused = isinstance(error, EngineFailed) and error.refused
        if error and (len(targets) == 1 or not (refused or isinstance(error, SourceError))):
            return [(images, names, error)]
        if error:
            self.on_event(Note(f"sending the images one by one: {error.message}"))
        failures: list[_Failure] = []
        for target in targets:
            alone = [image for image in images if image.target == target]
            rest = [name for name in names if (alone[0].name, name) not in self.results]
            failures += self._send_group(alone, rest) if rest else []
        return failures

    def _send(self, images: Sequence[Image], nodes: Sequence[NodeRuntime]) -> None:
        start = time.monotonic()
        sending = self._sending(images)
        send_delta = sending.delta_or_none(nodes)
        if send_delta:
            self._announce(images, nodes, sending.missing_bytes(nodes))
            nodes = self._send_delta(sending, send_delta, nodes, start)
            whole = frozenset(layer for image in images for layer in image.diff_ids)
            sending.missing = dict.fromkeys(sending.missing, whole)
        size = sum({image.target: image.size for image in images}.values())
        nodes = list(self._with_disk_space(images, nodes, size))
        for image, node in product(images, nodes if send_delta else ()):
            step = self.steps[image.name, node.name]
            if step.action == "delta":
                full = attrs.evolve(step, action="full", missing=frozenset(image.diff_ids))
                self.steps[image.name, node.name] = full
        self._announce(images, nodes, size)
        for first in (True, False):
            if nodes:
                sent = sending.by_save(nodes)
                again = [node for node in nodes if first and self._restarted(node, sent)]
                done = [node for node in nodes if node not in again]
                in_parallel([partial(self._finish, node, sent, start) for node in done])
                self._cache_layers(sending, sent)
                nodes = again

    def _restarted(self, node: NodeRuntime, sent: Sent) -> bool:
        """Whether containerd has another snapshotter than the one that the layers went into."""
        now, before = sent.deliveries[node.name].survey, self.surveys[node.name]
        return now is not None and now.traits.snapshotter != before.traits.snapshotter

    def _sending(self, images: Sequence[Image]) -> Sending:
        names = {image.name for image in images}
        missing = {
            node: frozenset[Digest]().union(
                *(s.missing for (name, n), s in self.steps.items() if n == node and name in names)
            )
            for node in self.nodes
        }
        identified = [image.origin.identify(image) for image in images]
        transport = self.transport or self._transport(names)
        option = self.option if self.option in {"archive", "delta"} else "auto"
        return Sending(
            identified,
            self.surveys,
            missing,
            option,
            self.on_event,
            transport,
            keep_manifest=self.keep_manifest,
        )

    def _transport(self, names: Collection[str]) -> Transport:
        """Return the transport for some images.

        A pull would omit a layer that is unpacked, but not stored.
        """
        sends = [s for s in self.steps.values() if s.image.name in names and s.action in _SENT]
        unpacked = self.complete and any(
            not_unpacked(step.image.diff_ids, self.surveys[step.node]) < step.missing
            for step in sends
        )
        imports = unpacked or self.option in {"import", "archive"}
        if imports:
            why = "--complete" if unpacked else f"--transport {self.option}"
            trace.log(f"transport: nodes import a stream: {why}")
        return ImportTransport() if imports else PullTransport()

    def _announce(self, images: Sequence[Image], nodes: Sequence[NodeRuntime], size: int) -> None:
        for node in nodes:
            self.on_event(SendingStarted(node.name, tuple(i.name for i in images), size))

    def _send_delta(
        self, sending: Sending, send: Callable[[], Sent], nodes: Sequence[NodeRuntime], start: float
    ) -> Sequence[NodeRuntime]:
        """Send the missing layers; return the nodes that need a full load."""
        try:
            sent = send()
        except (PushIncomplete, StoreFull) as error:
            self.on_event(Note(f"sending the images whole, since the push failed: {error.message}"))
            return nodes
        attempts = [partial(self._finish, node, sent, start, is_delta=True) for node in nodes]
        rest = [n for n, done in zip(nodes, in_parallel(attempts), strict=True) if not done]
        self._cache_layers(sending, sent)
        return rest

    def _cache_layers(self, sending: Sending, sent: Sent) -> None:
        """Cache the sent layers that nodes have unpacked, if all images are verified there."""
        results = {
            node: [self.results.get((image.name, node)) for image in sent.images]
            for node in sent.deliveries
        }
        sending.cache_layers(sent, [n for n, of in results.items() if all(r and r.ok for r in of)])

    def _with_disk_space(
        self, images: Sequence[Image], nodes: Sequence[NodeRuntime], needed: int
    ) -> Iterator[NodeRuntime]:
        """Yield the nodes with enough disk space for the content, in addition to the snapshots."""
        for node in nodes:
            try:
                node.require_disk_space(self.surveys[node.name].traits.free, needed)
            except NodeFull as error:
                for image in images:
                    self._record(image, NodeResult(node.name, "full", error=error))
            else:
                yield node

    def _finish(
        self, node: NodeRuntime, sent: Sent, start: float, *, is_delta: bool = False
    ) -> bool:
        """Verify a node, and record the results.

        Return False without results if a delta needs a full load, or the images are to be sent one
        by one: the node refuses one of them.
        """
        proofs, failure = self._verify(node, sent)
        verified = all(proof.ok or proof.cri_pending for proof in proofs.values())
        note = ""
        if is_delta and not (is_final(failure) and verified):
            note = f"{node.name} does not have the image after a delta: sending it whole"
        elif isinstance(failure, ImportFailed) and len({i.target for i in sent.images}) > 1:
            note = f"sending the images one by one: {failure.message}"
        if note:
            for image in sent.images:
                node.rollback(image, self.surveys[node.name])
            self.on_event(Note(note))
            return False
        delivery = sent.deliveries[node.name]
        if delivery.note:
            self.on_event(Note(delivery.note))
        for image in sent.images:
            proof = proofs.get(image.name)
            error = failure or _refusal(image, node, proof)
            if error and not (proof and proof.cri_pending):
                node.rollback(image, self.surveys[node.name])
            result = NodeResult(
                node.name,
                self.steps[image.name, node.name].action,
                proof,
                sent.sizes.get((node.name, image.name), delivery.bytes_sent),
                time.monotonic() - start,
                error,
                transport=delivery.transport or sent.transport,
            )
            survey = delivery.survey
            result = self._with_replaced(image, result, node.before, survey)
            self._record(image, result, survey)
        return True

    def _verify(
        self, node: NodeRuntime, sent: Sent
    ) -> tuple[dict[str, Proof], ImgloadError | None]:
        self.on_event(SendingEnded(node.name))
        delivery = sent.deliveries[node.name]
        if delivery.error:
            return {}, delivery.error
        if delivery.survey:
            proofs = {i.name: self._prove(i, delivery.survey, node.name) for i in sent.images}
            if all(proof.ok for proof in proofs.values()):
                return proofs, None
        try:
            node.label(SurveyQuery.about(sent.images, loaded=True).loaded)
            return self._await_proofs(node, sent.images), None
        except ImgloadError as error:
            return {}, error

    def _await_proofs(self, node: NodeRuntime, images: Sequence[Image]) -> dict[str, Proof]:
        deadline = time.monotonic() + PROOF_SECONDS
        while True:
            survey = node.survey(SurveyQuery.about(images))
            proofs = {image.name: self._prove(image, survey, node.name) for image in images}
            if all(p.ok for p in proofs.values()):
                return proofs
            if time.monotonic() > deadline:
                node.require_cri(survey, *proofs)
                return proofs
            if not all(p.ok or p.cri_pending for p in proofs.values()):
                return proofs
            time.sleep(_PROOF_PAUSE)

    def _with_replaced(
        self, image: Image, result: NodeResult, before: PreviousNames, now: Survey | None = None
    ) -> NodeResult:
        """Add to a result the other image that had the name before.

        If another tool moved the name since a cached survey, only the new one knows that image.
        """
        surveyed = self.surveys[result.node]
        records = surveyed.records if before.records is None else before.records
        others = set[Digest]()
        if target := records.get(image.name):
            for survey in filter(None, (surveyed, now)):
                others |= survey.content.configs_under(target) - {image.image_id}
        return attrs.evolve(result, replaced=min(others)) if others and result.ok else result


def _split_available(steps: Sequence[Step]) -> tuple[tuple[Step, ...], list[_Failure]]:
    """Return the steps whose layers their sources have, and the failures of the others."""
    lacking: dict[str, list[Step]] = {}
    for step in steps:
        if step.unavailable:
            lacking.setdefault(step.image.name, []).append(step)
    failures: list[_Failure] = []
    for name, of_image in lacking.items():
        image, nodes = of_image[0].image, [step.node for step in of_image]
        layers = sorted(set().union(*(step.unavailable for step in of_image)))
        reasons = image.absent_layers
        listed = ", ".join(f"{x} ({reasons[x]})" if reasons[x] else str(x) for x in layers)
        error = ArchiveInvalid(
            f"{image.origin.describe} does not have all layers of {name}, and neither"
            f" {'has' if len(nodes) == 1 else 'have'} {', '.join(nodes)}: {listed}",
            hint="load the base image first, or save the image with all layers",
            image=name,
        )
        failures.append(([image], nodes, error))
    return tuple(step for step in steps if not step.unavailable), failures


def _refusal(image: Image, node: NodeRuntime, proof: Proof | None) -> ImgloadError | None:
    if proof is not None and proof.ok:
        return None
    if proof and proof.cri_pending:
        return NotVerified(
            f"verification failed on {node.name}: CRI did not report {image.name}"
            f"{' as pinned' if proof.cri else ''} within {PROOF_SECONDS:.0f} seconds",
            hint="load it again in a minute: containerd's CRI plugin retries by itself",
            node=node.name,
            image=image.name,
        )
    missing = ", ".join(proof.missing()) if proof else "everything"
    return NotVerified(
        f"verification failed on {node.name}: {image.name} was imported, but lacks {missing}",
        hint=node.log_command,
        node=node.name,
        image=image.name,
    )
