"""``imgload watch``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import (
    address_option,
    cluster_options,
    complete_images,
    engine_option,
    output_option,
    restart_option,
    verbose_option,
)
from imgload.cli.output import (
    DONE,
    TIME_WIDTH,
    at_node,
    failures,
    hint_text,
    restart_lines,
    show_json,
    summary_text,
)
from imgload.cli.process import say, style
from imgload.core.errors import JSON_VERSION
from imgload.core.units import size_text
from imgload.loader.events import Event, Note
from imgload.loader.report import ImageResult
from imgload.oci.reference import Reference

if TYPE_CHECKING:
    from imgload.tools.watch.watch import WatchedLoad


_EXEC = (
    "Shell command to run after each successful load of an image, whose name is in the variable"
    " IMGLOAD_IMAGE. Its output goes to stderr."
)


@click.command()
@click.argument("patterns", nargs=-1, metavar="PATTERN...", shell_complete=complete_images)
@cluster_options
@address_option
@engine_option
@restart_option
@click.option("--exec", "command", metavar="COMMAND", help=_EXEC)
@verbose_option
@output_option("json")
def watch(patterns: tuple[str, ...], output: str, command: str | None, **options: Any) -> None:
    """Load each image as soon as it is built or tagged.

    PATTERN is an image name in which * matches any text, slashes included; without a tag it matches
    every tag. Runs until Ctrl-C. Each matching image that an engine builds, tags, loads or pulls is
    loaded onto the nodes and verified, and reported on one line. Images that existed before the
    start are not loaded. Engines may restart meanwhile; a cluster may be recreated, and then gets
    all images of this watch with the next one.

    Exit status on Ctrl-C or SIGTERM: 0; 130 if that interrupted a load.

    \b
    Examples:
      imgload watch app                     load every tag of app
      imgload watch 'app:dev-*' db -c kind  load two patterns into kind
      imgload watch 'ghcr.io/me/*'          load all images of an owner
      imgload watch '*' --from podman       load each image that Podman builds
      imgload watch app --restart           restart the pods that use it
      imgload watch app --exec 'make test'  run a command after each load
      imgload watch app -o json             print one JSON document a line
    """
    from imgload.tools.watch.watch import Watch  # noqa: PLC0415 - start-up

    def on_event(event: Event) -> None:
        if isinstance(event, Note):
            show_watched(event, output)

    opening = Watch.open(patterns, on_event=on_event, **options)
    with failures(output, quiet=False, indent=None), opening as opened:
        try:
            for load in opened:
                show_watched(load, output)
                if command and not isinstance(load, Note) and not load.error:
                    for reference in load.references:
                        show_watched(_run(command, reference), output)
        except KeyboardInterrupt:
            if opened.busy:
                raise
            say("stopped", err=True)


def _run(command: str, reference: str) -> Note:
    """Run a shell command about an image, and return a note about its end."""
    from imgload.core.errors import BuildFailed, UsageError  # noqa: PLC0415 - start-up
    from imgload.tools.skaffold.builders import running  # noqa: PLC0415

    argv = ["sh", "-c", 'exec sh -c "$1" >&2', "sh", command]
    status = 0
    try:
        with running(argv, environ={"IMGLOAD_IMAGE": reference}) as process:
            process.wait()
    except BuildFailed:
        status = process.returncode
    except UsageError as error:
        return Note(f"{reference}: {error.message}")
    return Note(f"{reference}: the command of --exec ended with exit status {status}")


def show_watched(result: WatchedLoad | Note, output: str) -> None:
    """Print a result or a note: one JSON document, or lines with the time, of a note on stderr."""
    if isinstance(result, Note):
        at, lines = datetime.now().astimezone(), [result.text]
        time = at.isoformat(timespec="milliseconds")
        document = {"version": JSON_VERSION, "time": time, "note": result.text}
    else:
        at, document = result.at, result.to_json()
        images = result.report.images if result.report else ()
        lines = [_image_line(image, result.seconds) for image in images]
        lines += restart_lines(result.report.restart if result.report else None)
        if result.error and not result.report:
            failed = _failed(result.error.message, result.error.hint)
            lines = [f"{style(', '.join(result.references), bold=True)} {failed}"]
    if output == "json":
        show_json(document, indent=None)
        return
    for line in lines:
        say(f"{at:%H:%M:%S} {line}", err=isinstance(result, Note))


def _image_line(image: ImageResult, seconds: float) -> str:
    """Return the line of an image, with the error and hint of the first node that failed."""
    verified = [node for node in image.nodes if node.ok]
    failed = [node for node in image.nodes if not node.ok]
    count = f"{len(verified)} of {len(image.nodes)}" if failed else str(len(verified))
    result = ""
    if verified:
        size = max(node.bytes_sent for node in verified)
        actions = sorted({DONE[node.action or "full"] for node in verified})
        sent = size_text(size) if size else " and ".join(actions)
        result = f", {sent} in {seconds:.1f} s; verified"
    name = Reference.parse(image.reference).familiar
    line = summary_text(name, image, count, result, TIME_WIDTH)
    if failed:
        node, hint = failed[0], failed[0].error.hint if failed[0].error else ""
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        line += f"; {_failed(f'{at_node(node.node, node.error_text)}{more}', hint)}"
    return line


def _failed(message: str, hint: str) -> str:
    return f"{style('failed', fg='red')}: {' '.join(message.split())}{hint_text(hint)}"
