"""After a failed load: no name on the node leads to an image that is not whole."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from imgload.errors import ImgloadError
from imgload.nodes import containerd
from imgload.nodes.node import Node
from imgload.nodes.survey import Question, Survey
from imgload.plan import Image


def undo(node: Node, before: Survey, image: Image) -> None:
    """Give a name back to what had it before, or take it away.

    ``ctr images import`` names an image before it unpacks it, so that a failure leaves a node
    that believes it has the image (kind #2402). CRI adds a record named after the image ID.

    Args:
        node: where the load failed.
        before: what it had then.
        image: what was to be loaded.

    """
    with contextlib.suppress(ImgloadError):
        names = [image.name, *([str(image.image_id)] if image.image_id else [])]
        targets = tuple(before.records[name] for name in names if name in before.records)
        now = node.survey(Question(tuple(names), (), targets))
        for name in _changed(names, before, now):
            _restore(node, name, before, now)


def _changed(names: Sequence[str], before: Survey, now: Survey) -> list[str]:
    return [n for n in names if n in now.records and now.records[n] != before.records.get(n)]


def _restore(node: Node, name: str, before: Survey, now: Survey) -> None:
    target = before.records.get(name)
    same = [other for other, t in now.records.items() if t == target and other != name]
    if target is not None and same:
        node.run(containerd.tag_command(same[0], name))
    else:
        node.run(containerd.remove_command([name]))
