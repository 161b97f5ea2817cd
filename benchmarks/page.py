"""docs/benchmarks.md with its plot and its samples, as a run of the benchmark found them."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.plot import svg
from benchmarks.results import Duel, Results
from benchmarks.sites import SITES, TARGET_SIZE, words
from benchmarks.table import details, duels, growth, rebuilds, remarks

DOCS = Path(__file__).parents[1] / "docs"
_FIRST = """\
imgload beside the real kind and the usual ways around it, in one run. Who is first and who is last
change places from round to round, and in the first round from engine to engine.
`sudo .venv/bin/python -m benchmarks --write-docs`, in the repository, does it again with the lab's
own engines and nodes, and writes this page. {{download}}`Every sample <benchmarks.json>` is kept.

- Machine: {cores} cores, {gigabytes:.0f} GB of memory, {system}, kernel {kernel}, Python {python}.
  When the run began, {busy:.1f} other processes were running on average; it took {minutes:.0f}
  minutes. Compare ratios of one run, not the seconds of different ones."""
_HOW = """\
"Ten images" are loaded by one command. "Cold": nothing of the image is on the node, and imgload
remembers nothing. "One-line rebuild": a line in the last layer has changed since the load before.
"The first": a graphdriver store compresses the large layers once before it can leave them out; it
is held against the rival's ordinary rebuild. "kind" is `kind load docker-image`, "archive" the
engine's `save -o FILE` and `kind load image-archive FILE` (both times added up), "ctr" is
`save | exec -i NODE ctr images import --local -`, node by node. The rival is kind, and for Podman,
whose images kind does not find, the archive.

After each load, with the clock stopped, each node's CRI is asked, and must have the right image ID;
all layers must be unpacked. What fails that is not timed, and is listed below.

- *s*, *CPU*: medians over the rounds, of the command with the programs that it starts, start-up
  included. What daemons and nodes do for it is not in *CPU*.
- *peak*: the largest resident size of any one process of the command, in any round.
- On Podman, *CPU* and *peak* are not comparable and favour imgload: the rival's `podman save` does
  its work in the command's own process, and imgload's save in `podman system service`, which is not
  counted.
- Counting what goes *into nodes* starts a shell for each call of `docker` or `podman` by kind,
  archive and ctr, which takes them a few milliseconds a call; imgload has none.
- *into nodes*: what its clients wrote to feed the imports (`wchar` of the client, with a few
  kilobytes of its own talk); for imgload what it reports, which is the blobs it sent.
- *written*: bytes that the command, and its engine's daemon while it ran, wrote for the disk
  (`write_bytes`): temporary files and archives. What the nodes write to unpack is not in it.
"""
_PROFILE = """\
By a load of one more rebuild, with marks set from outside: a phase lasts until the next one
begins. The floor is the engine's own client pushing the one new layer, and `ctr images import` of
it through the client's `exec`, without survey and proof. It is no limit: starting those clients is
part of it. All are medians of the rounds, so the phases need not add up to the whole.
"""
_GROWTH = """\
Lines through the medians, by least squares: what one more unit costs, and the seconds that the
line has at none ("s at 0"). The points are where was measured; lines for layers and nodes are each
of images of one size. Layers are added as small ones on top of the same image; the one-node point
of the nodes' line is the cluster of one node. That cluster has a crictl, and the one of three nodes
has none, so the first point has what kind and imgload ask of it besides.
"""

_NOT = "Not measured in this run."


def write_docs(results: Results) -> None:
    """Write the samples, which nothing else can bring back, the page and the plot."""
    results.write(DOCS / "benchmarks.json")
    (DOCS / "benchmarks.md").write_text(page(results), encoding="utf-8")
    (DOCS / "benchmarks.svg").write_text(svg(results, main_size(results)), encoding="utf-8")


def main_size(results: Results) -> int:
    """Return the size that the targets are about, else the largest."""
    return TARGET_SIZE if TARGET_SIZE in results.sizes() else results.sizes()[-1]


def page(results: Results) -> str:
    """Return the page."""
    size = main_size(results)
    lines = [
        *("# Benchmarks", "", *_introduction(results), ""),
        f"![Seconds by case and contestant, images of {size} MB](benchmarks.svg)",
        *("", "## Beside kind", "", *_verdict(results), "", *duels(results)),
        *("## Every way", "", _HOW, *details(results)),
        *("## Growth", "", _GROWTH, *(list(growth(results)) or [_NOT, ""])),
        *("## Profile", "", _PROFILE, *(list(rebuilds(results)) or [_NOT, ""])),
        *_failed(results),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _introduction(results: Results) -> Iterator[str]:
    yield _FIRST.format(**results.machine, gigabytes=results.machine["memory"] / 1e9)
    for engine, versions in results.versions.items():
        kind = results.names[engine][SITES[engine].rival]
        yield f"- {SITES[engine].label}: version {versions['engine']}; nodes with containerd"
        yield f"  {versions['containerd'].lstrip('v')}; the rival is `{kind}`."
    yield "- Images of random content, new for every round. The larger they are, the fewer rounds"
    yield "  and contestants; the tables have the numbers. Nothing in them is guessed."


def _verdict(results: Results) -> Iterator[str]:
    """Say which targets were not reached, and which were not measured."""
    yield f"Targets are about images of {TARGET_SIZE} MB."
    asked = [duel for duel in results.duels(TARGET_SIZE) if duel.target]
    wanted = {(engine, case) for engine, site in SITES.items() for case in site.targets}
    if absent := len(wanted - {(duel.engine, duel.case) for duel in asked}):
        yield f"Of {len(wanted)}, {absent} were not measured in this run."
    missed = [duel for duel in asked if not duel.met]
    if asked and not missed:
        yield "Those that were measured are all reached."
    if missed:
        yield "These were missed:"
        yield ""
        yield from map(_miss, missed)


def _miss(duel: Duel) -> str:
    name = f"{SITES[duel.engine].label}, {words(duel.case)}"
    return f"- {name}: {duel.ratio:.2f} x as fast, where {duel.target:g} x was asked for"


def _failed(results: Results) -> Iterator[str]:
    found = list(remarks(results))
    if found:
        yield from ("## Not measured", "", *found)
