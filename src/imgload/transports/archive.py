"""The archive transport: save, into the nodes, import; one save feeds all nodes."""

from __future__ import annotations

from collections.abc import Mapping

from imgload.oci.repack import Repack
from imgload.transports.fanout import fan_out
from imgload.transports.imports import Delivery, Lanes


def deliver(repack: Repack, lanes: Lanes) -> Mapping[str, Delivery]:
    """Import one stream into several nodes at once; a node that fails does not stop the others.

    Raises:
        ImgloadError: when the source fails; no node has an image of it then.

    """
    try:
        fan_out(repack, list(lanes.feeds.values()))
        return lanes.finish()
    except BaseException:
        lanes.abort()
        raise
