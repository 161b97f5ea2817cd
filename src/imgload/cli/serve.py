"""``imgload serve``."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import (
    complete,
    complete_images,
    engine_option,
    output_option,
    verbose_option,
)
from imgload.cli.output import (
    TIME_WIDTH,
    failure_text,
    failures,
    hint_text,
    shorten,
    show_json,
)
from imgload.cli.process import FAILED, say, style
from imgload.core.errors import JSON_VERSION
from imgload.core.units import parse_size, size_text
from imgload.loader.events import Note

if TYPE_CHECKING:
    from imgload.tools.remote_registry.configure import NodeWiring
    from imgload.tools.serve.serve import ServeEvent

_CONFIG_PATH = "/etc/containerd/certs.d"
_CONFIGS = {
    "kind": f"""\
# kind create cluster --config FILE; kind 0.31 and later need none of it.
# If containerd's configuration has version 3, the plugin is io.containerd.cri.v1.images.
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "{_CONFIG_PATH}"
""",
    "k3d": """\
# k3d cluster create --registry-config FILE; k3s then sets config_path
mirrors:
  imgload.invalid:
    endpoint:
      - http://127.0.0.1:1
""",
    "minikube": f"""\
# minikube start --container-runtime=containerd sets config_path to {_CONFIG_PATH} by itself
""",
}


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_images)
@click.option(
    "--cluster",
    "-c",
    "clusters",
    multiple=True,
    metavar="NAME",
    shell_complete=partial(complete, "clusters"),
    help="Name of a cluster; repeatable. [default: every local cluster]",
)
@engine_option
@click.option("--all", "pulled", is_flag=True, help="Serve pulled images, too.")
@click.option(
    "--restart-containerd",
    is_flag=True,
    help="Set config_path and restart containerd on nodes that need it; containers keep running.",
)
@click.option(
    "--cache-size",
    default="10GiB",
    metavar="SIZE",
    show_default=True,
    envvar="IMGLOAD_CACHE_SIZE",
    help="Size of the cache of layers on disk; the least recently used are removed first.",
)
@click.option("--stop", "stops", is_flag=True, help="End the running server; restore all nodes.")
@click.option(
    "--print-config",
    type=click.Choice([*_CONFIGS]),
    help="Print the cluster configuration that makes CRI read hosts.toml files, and exit.",
)
@verbose_option
@output_option("json")
def serve(*, output: str, stops: bool, print_config: str | None, **options: Any) -> None:
    """Let nodes pull local builds by themselves.

    While it runs, the nodes of local clusters ask this machine first when they pull an image.
    PATTERN limits the image names; * matches any text, slashes included. Without PATTERN, every
    image that a local engine has built is served. For all other images, the nodes ask the registry
    in the name. Runs until Ctrl-C, and then restores the nodes' configuration.

    \b
    Examples:
      imgload serve                  serve local builds to every local cluster
      imgload serve app -c kind      serve every tag of app to the cluster "kind"
      imgload serve 'ghcr.io/me/*'   serve local builds of an owner's images
      imgload serve --stop           end the server; restore nodes after a crash
    """
    from imgload.tools.serve.serve import Serve, ServeOptions, stop  # noqa: PLC0415 - start-up

    if print_config:
        say(_CONFIGS[print_config], nl=False)
        return
    with failures(output, quiet=False, indent=None):
        if stops:
            _show_stop(*stop(), output)
            return
        size = parse_size(options.pop("cache_size"))
        with Serve.open(ServeOptions(cache_size=size, **options)) as opened:
            try:
                for event in opened:
                    _show(event, output)
            except KeyboardInterrupt:
                say("stopping: restoring the nodes", err=True)


def _show_stop(was_running: bool, nodes: list[NodeWiring], output: str) -> None:
    restored = [node for node in nodes if node.files or node.error]
    if output == "json":
        documents = [node.to_json() for node in restored]
        show_json({"version": JSON_VERSION, "stopped": was_running, "nodes": documents})
    else:
        say("stopped" if was_running else "no server runs")
        for node in restored:
            say(f"  {_node_line(node, 'restored')}")
    if any(node.error for node in restored):
        raise click.exceptions.Exit(FAILED)


def _node_line(node: NodeWiring, done: str) -> str:
    if node.error:
        return failure_text(node.node, node.error.message, node.error.hint)
    restarted = "; containerd was restarted" if node.restarted else ""
    return f"{style('✓', fg='green')} {node.node}: {done}{restarted}"


def _show(event: ServeEvent, output: str) -> None:
    """Print an event: one JSON document, or a line with the time, of a note on stderr."""
    from imgload.tools.serve.serve import NodeReady  # noqa: PLC0415 - start-up

    now = datetime.now().astimezone()
    document = {"version": JSON_VERSION, "time": now.isoformat(timespec="milliseconds")}
    if isinstance(event, NodeReady):
        cri = "CRI pulls through imgload" if event.wiring.cri else "ready"
        document |= event.wiring.to_json()
        line = _node_line(event.wiring, cri)
    elif isinstance(event, Note):
        document |= {"note": event.text}
        line = event.text
    else:
        now, document = event.at, event.to_json()
        result, failure = "", ""
        if event.error:
            hint = hint_text(event.error.hint)
            failure = f"{style('not served', fg='red')}: {event.error.message}{hint}"
        elif event.image_id:
            size = size_text(event.bytes_sent)
            result = f"{event.image_id.short}, {size} in {event.seconds:.1f} s"
        rest = f" -> {event.node}: {result}"
        line = style(shorten(event.name, len(rest) + TIME_WIDTH), bold=True) + rest + failure
    if output == "json":
        show_json(document, indent=None)
    else:
        say(f"{now:%H:%M:%S} {line}", err=isinstance(event, Note))
