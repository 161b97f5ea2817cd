"""The survey after the last load into a node, cached for the next run.

It only decides which layers to send. The result of every load is read back from the node.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path

from imgload.clusters.nodes.containerd import parse_content
from imgload.clusters.nodes.kubelet import Kubelet
from imgload.clusters.nodes.survey import NodeTraits, Survey
from imgload.core.errors import ArchiveInvalid, UsageError
from imgload.core.state import private_folder, read_own_file, replace_file, state_folder
from imgload.oci.digest import Digest
from imgload.oci.document import load_json
from imgload.oci.platform import Platform

_SECONDS = 3600.0
"""Maximum age: after that, a node is more likely to have removed layers."""
_MAX_BYTES = 2 << 20
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")


def read_survey(container_id: str) -> Survey | None:
    """Return the cached survey of a node without names and CRI's answers, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError, ArchiveInvalid, UsageError):
        document = load_json(read_own_file(_path(container_id), _MAX_BYTES))
        if not 0 <= time.time() - document["time"] < _SECONDS:
            return None
        major, minor = map(int, document["version"])
        traits = NodeTraits(
            version=(major, minor),
            snapshotter=str(document["snapshotter"]),
            platform=Platform.parse(document["platform"]),
            free=None,
            start=str(document["start"]),
            kubelet=Kubelet(int(percent)) if (percent := document["gc_percent"]) else None,
        )
        snapshots = frozenset(map(Digest.parse, document["snapshots"]))
        content = parse_content("\n".join(["", *map(str, document["content"])]))
        return Survey(traits, {}, content, snapshots, {}, {}, fresh=False)
    return None


def write_survey(container_id: str, survey: Survey) -> None:
    """Cache the survey of a node; a failure is ignored, since it only costs time."""
    traits = survey.traits
    document = {
        "time": time.time(),
        "version": traits.version,
        "snapshotter": traits.snapshotter,
        "platform": str(traits.platform),
        "start": traits.start,
        "gc_percent": traits.kubelet and traits.kubelet.gc_percent,
        "snapshots": list(map(str, survey.snapshots)),
        "content": [f"{digest}\t{row}" for digest, row in survey.content.rows.items()],
    }
    with suppress(OSError, ValueError):
        private_folder(state_folder())
        _remove_old()
        replace_file(_path(container_id), json.dumps(document))


def remove_survey(container_id: str) -> None:
    """Forget a node, whose content is about to change."""
    with suppress(OSError, ValueError):
        _path(container_id).unlink(missing_ok=True)


def _path(container_id: str) -> Path:
    if not _CONTAINER_ID.fullmatch(container_id):
        raise ValueError(f"not a container ID: {container_id!r:.80}")
    return state_folder() / f"node-{container_id}.json"


def _remove_old() -> None:
    """Remove the files of nodes that were not used lately, and may not exist any more."""
    for file in state_folder().glob("node-*.json"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _SECONDS:
                file.unlink()
