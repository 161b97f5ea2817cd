"""``imgload watch``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import cluster_options, completed, engine_option, output_option
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style
from imgload.cli.text import at_node, hint_text
from imgload.core.errors import JSON_VERSION
from imgload.core.sizes import size_text
from imgload.loader.events import Event, Note
from imgload.loader.report import ImageResult, NodeResult
from imgload.oci.reference import Reference

if TYPE_CHECKING:
    from imgload.tools.watch.watch import WatchedLoad

_WITHOUT_BYTES = {"present": "already there", "tagged": "tagged"}
"""What to say of an action that moved no bytes; else that is a name more of what was sent."""


@click.command(no_args_is_help=True)
@click.argument("patterns", nargs=-1, metavar="PATTERN...", shell_complete=completed("images"))
@cluster_options
@engine_option
@output_option("json")
def watch(
    patterns: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    source: str | None,
    output: str,
) -> None:
    """Load each image the moment it is built or tagged, until Ctrl-C.

    PATTERN is an image's name with * for anything, slashes too; without a tag it means every tag.
    Build with whatever you like: what an engine has built, tagged, loaded or pulled under such a
    name is put on the nodes and proven, one line for each. Images that were there before are left
    alone. Engines may restart and the cluster may be made anew meanwhile: with the next image it
    gets again what this watch had loaded.

    Ends with exit status 0 on Ctrl-C or SIGTERM, and with 130 when that cut a load off.

    \b
    Examples:
      imgload watch app                     app:dev, app:v1, ... into the kube context's cluster
      imgload watch 'app:dev-*' db -c kind  two patterns, into this cluster
      imgload watch 'ghcr.io/me/*'          all of one owner's images
      imgload watch '*' --from podman       whatever Podman builds
      imgload watch app -o json             one JSON document a line, for machines
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.watch.watch import Watch  # noqa: PLC0415 - --help needs none of it

    show = _show_json if output == "json" else _show_text
    opening = Watch.open(
        patterns, cluster=cluster, nodes=nodes, source=source, on_event=_noted(show)
    )
    with failures(output, quiet=False, indent=None), opening as opened:
        try:
            for each in opened:
                show(each)
        except KeyboardInterrupt:
            if opened.busy:
                raise
            say("stopped", err=True)


def _noted(show: Callable[[WatchedLoad | Note], None]) -> Callable[[Event], None]:
    """Return what to call with a load's events: only notes are shown."""
    return lambda event: show(event) if isinstance(event, Note) else None


def _show_json(found: WatchedLoad | Note) -> None:
    show_json(_note(found) if isinstance(found, Note) else found.to_json(), indent=None)


def _note(note: Note) -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return {"version": JSON_VERSION, "time": now, "note": note.text}


def _show_text(found: WatchedLoad | Note) -> None:
    at = datetime.now().astimezone() if isinstance(found, Note) else found.at
    for line in _lines(found):
        say(f"{at:%H:%M:%S} {line}", err=True)


def _lines(found: WatchedLoad | Note) -> Iterator[str]:
    if isinstance(found, Note):
        yield found.text
    elif found.report:
        yield from (_image(image, found.seconds) for image in found.report.images)
    elif found.error:
        why = " ".join(found.error.message.split())
        names = ", ".join(found.references)
        yield f"{style(names, bold=True)} {_failed(why, found.error.hint)}"


def _image(image: ImageResult, seconds: float) -> str:
    """Return an image's line, and behind it what to do about the first node that failed."""
    good = [node for node in image.nodes if node.ok]
    bad = [node for node in image.nodes if not node.ok]
    name = style(Reference.parse(image.reference).familiar, bold=True)
    identity = f" {image.image_id.short}" if image.image_id else ""
    count = f"{len(good)} of {len(image.nodes)}" if bad else str(len(good))
    nodes = f"{count} node{'' if len(image.nodes) == 1 else 's'}"
    how = f", {_how(good, seconds)}; proven" if good else ""
    failure = f"; {_first_failure(bad)}" if bad else ""
    return f"{name}{identity} -> {nodes}{how}{failure}"


def _how(nodes: list[NodeResult], seconds: float) -> str:
    size = max(node.bytes_sent for node in nodes)
    words = sorted({_WITHOUT_BYTES.get(node.action or "", "loaded") for node in nodes})
    return f"{size_text(size) if size else ' and '.join(words)} in {seconds:.1f} s"


def _first_failure(bad: list[NodeResult]) -> str:
    node, error = bad[0], bad[0].error
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    said = " ".join(node.error_text.split())
    return _failed(f"{at_node(node.node, said)}{more}", error.hint if error else "")


def _failed(why: str, hint: str) -> str:
    return f"{style('failed', fg='red')}: {why}{hint_text(hint)}"
