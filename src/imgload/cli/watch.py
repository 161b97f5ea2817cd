"""``imgload watch``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import cluster_options, completed, engine_option, output_option
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style
from imgload.cli.text import at_node, hint_text, summary_text
from imgload.core.errors import JSON_VERSION
from imgload.core.units import size_text
from imgload.loader.events import Event, Note
from imgload.loader.report import ImageResult, NodeResult
from imgload.oci.reference import Reference

if TYPE_CHECKING:
    from imgload.tools.watch.watch import WatchedLoad

_WITHOUT_TRANSFER = {"present": "already there", "tagged": "tagged"}


@click.command(no_args_is_help=True)
@click.argument("patterns", nargs=-1, metavar="PATTERN...", shell_complete=completed("images"))
@cluster_options
@engine_option
@output_option("json")
def watch(patterns: tuple[str, ...], output: str, **options: Any) -> None:
    """Load each image as soon as it is built or tagged.

    PATTERN is an image name in which * matches any text, slashes included; without a tag it matches
    every tag. Runs until Ctrl-C. Each matching image that an engine builds, tags, loads or pulls is
    loaded onto the nodes and verified, and reported on one line. Images that existed before the
    start are not loaded. Engines may restart meanwhile; a cluster may be recreated, and then gets
    all images of this watch with the next one.

    Exit status on Ctrl-C or SIGTERM: 0; 130 if that interrupted a load.

    \b
    Examples:
      imgload watch app                     load every tag of app into the kube context's cluster
      imgload watch 'app:dev-*' db -c kind  load two patterns into the cluster "kind"
      imgload watch 'ghcr.io/me/*'          load all images of an owner
      imgload watch '*' --from podman       load each image that Podman builds
      imgload watch app -o json             print one JSON document a line
    """
    from imgload.tools.watch.watch import Watch  # noqa: PLC0415 - start-up

    show = _show_json if output == "json" else _show_text

    def on_event(event: Event) -> None:
        if isinstance(event, Note):
            show(event)

    opening = Watch.open(patterns, on_event=on_event, **options)
    with failures(output, quiet=False, indent=None), opening as opened:
        try:
            for load in opened:
                show(load)
        except KeyboardInterrupt:
            if opened.busy:
                raise
            say("stopped", err=True)


def _show_json(result: WatchedLoad | Note) -> None:
    if isinstance(result, Note):
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        show_json({"version": JSON_VERSION, "time": now, "note": result.text}, indent=None)
    else:
        show_json(result.to_json(), indent=None)


def _show_text(result: WatchedLoad | Note) -> None:
    at = datetime.now().astimezone() if isinstance(result, Note) else result.at
    for line in _lines(result):
        say(f"{at:%H:%M:%S} {line}", err=True)


def _lines(result: WatchedLoad | Note) -> Iterator[str]:
    if isinstance(result, Note):
        yield result.text
    elif result.report:
        yield from (_image_line(image, result.seconds) for image in result.report.images)
    elif result.error:
        names = ", ".join(result.references)
        yield f"{style(names, bold=True)} {_failed(result.error.message, result.error.hint)}"


def _image_line(image: ImageResult, seconds: float) -> str:
    """Return the line of an image, with the error and hint of the first node that failed."""
    verified = [node for node in image.nodes if node.ok]
    failed = [node for node in image.nodes if not node.ok]
    count = f"{len(verified)} of {len(image.nodes)}" if failed else str(len(verified))
    line = summary_text(Reference.parse(image.reference).familiar, image, count)
    if verified:
        line += f", {_transfer(verified, seconds)}; verified"
    if failed:
        node, hint = failed[0], failed[0].error.hint if failed[0].error else ""
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        line += f"; {_failed(f'{at_node(node.node, node.error_text)}{more}', hint)}"
    return line


def _transfer(nodes: list[NodeResult], seconds: float) -> str:
    size = max(node.bytes_sent for node in nodes)
    actions = sorted({_WITHOUT_TRANSFER.get(node.action or "", "loaded") for node in nodes})
    return f"{size_text(size) if size else ' and '.join(actions)} in {seconds:.1f} s"


def _failed(message: str, hint: str) -> str:
    return f"{style('failed', fg='red')}: {' '.join(message.split())}{hint_text(hint)}"
