"""Write docs/benchmarks.md, its plot and its samples from the results of a run."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.plot import svg
from benchmarks.results import Duel, Results
from benchmarks.sites import SITES, TARGET_SIZE, words
from benchmarks.table import details, duels, floors, growth, rebuilds, remarks, serves

DOCS = Path(__file__).parents[1] / "docs"
_FIRST = """\
imgload compared with the real kind and the usual alternatives, in one run. The order of the
contestants is reversed from round to round, and in the first round from engine to engine.
`sudo .venv/bin/python -m benchmarks --write-docs`, in the repository, repeats the run with the
lab's own engines and nodes, and writes this page. {{download}}`All samples <benchmarks.json>`.

- Machine: {cores} cores, {gigabytes:.0f} GB of memory, {system}, kernel {kernel}, Python {python}.
  When the run began, {busy:.1f} other processes were running on average; it took {minutes:.0f}
  minutes. Compare ratios of one run, not the seconds of different ones."""
_HOW = """\
"Ten images" are loaded by one command. "Cold": no part of the image is on the node, and imgload's
cache is empty. "One-line rebuild": a line in the last layer has changed since the previous load.
"The first": a graphdriver store compresses the large layers once before it can omit them; it is
compared with the rival's ordinary rebuild. "kind" is `kind load docker-image`, "archive" is the
engine's `save -o FILE` and `kind load image-archive FILE` (the sum of both times), "ctr" is
`save | exec -i NODE ctr images import --local -`, node by node. The rival is kind; for Podman,
whose images kind does not find, it is the archive. For archives on disk, kind is
`kind load image-archive FILE`, imgload is `imgload load --from FILE`, and the file is in the page
cache. "Debian with Python" is an image of Debian packages in four layers, with gzip unless the
table says zstd; where an engine stores layers unpacked (Docker's graphdriver, Podman), their
compression makes no difference, and zstd is not measured. "40 layers" has the same files in as many
layers; "a program in Go" is dockerd, in one layer.

After each load, with the clock stopped, each node's CRI must report the right image ID, and all
layers must be unpacked. Loads that fail this check are not timed, and are listed below.

- *s*, *CPU*: medians over the rounds, of the command and the programs that it starts, including
  start-up. *CPU* excludes the work of daemons and nodes.
- *peak*: the largest resident size of any one process of the command, in any round.
- On Podman, *CPU* and *peak* are not comparable and favour imgload: the rival's `podman save` does
  its work in the command's own process, and imgload's save in `podman system service`, which is not
  counted.
- Measuring *into nodes* starts a shell for each call of `docker` or `podman` by kind, archive and
  ctr, which costs them a few milliseconds per call; imgload has no such calls.
- *into nodes*: bytes that the command's clients wrote into the imports (`wchar` of the client, with
  a few kilobytes of protocol); for imgload the bytes of the blobs it sent, from its report.
- *written*: bytes that the command, and its engine's daemon during the command, wrote to the disk
  (`write_bytes`): temporary files and archives. Writes of the nodes are not included.
"""
_FLOOR = """\
The floor of a cold load is the longer of two parts, which can overlap: the engine's own client
pushes the image (the containerd store) or saves it (the other stores) to a sink that discards it,
and a node runs `ctr images pull` from a server that has all layers uncompressed. The floor of a
rebuild is the sum of the client's push of the one new layer and `ctr images import` of it. A floor
has no survey and no verification. It is not a lower bound, because it includes the start of clients
that imgload does not start. "At most" is the limit for images of 600 MB.
"""
_SERVE = """\
The seconds until a container has started: with `imgload load` and then the start, and with a pull
by CRI while `imgload serve` runs, and then the start. No kubelet runs on the nodes; the benchmark
sends them the calls of a kubelet: PullImage, CreateContainer and StartContainer. The sandbox of the
pod runs before. "Cold": neither the node nor the cache of serve has any part of the image. "At
most" is the limit for images of 600 MB.
"""
_PROFILE = """\
Measured with the load of one more rebuild, by instrumenting imgload from outside: a phase lasts
until the next one begins. All values are medians of the rounds, so the phases may not add up to the
total.
"""
_GROWTH = """\
Least-squares lines through the medians: the cost of one more unit, and the seconds at zero units
("s at 0"). "Points" are the measured values; each line for layers and nodes uses images of one
size. Added layers are small ones on top of the same image; the one-node point of the nodes' line is
the cluster with one node. That cluster has crictl, and the one with three nodes has none, so the
first point also includes the crictl calls of kind and imgload.
"""

_NOT = "Not measured in this run."


def write_docs(results: Results) -> None:
    """Write the samples first, because they cannot be recreated, then the page and the plot."""
    results.write(DOCS / "benchmarks.json")
    (DOCS / "benchmarks.md").write_text(page(results), encoding="utf-8")
    (DOCS / "benchmarks.svg").write_text(svg(results, main_size(results)), encoding="utf-8")


def main_size(results: Results) -> int:
    """Return the size that the targets apply to, otherwise the largest."""
    return TARGET_SIZE if TARGET_SIZE in results.sizes() else results.sizes()[-1]


def page(results: Results) -> str:
    """Return the page."""
    size = main_size(results)
    lines = [
        *("# Benchmarks", "", *_introduction(results), ""),
        f"![Seconds by case and contestant, images of {size} MB](benchmarks.svg)",
        *("", "## Compared with kind", "", *_verdict(results), "", *duels(results)),
        *("## All contestants", "", _HOW, *details(results)),
        *("## Load and serve", "", _SERVE, *(list(serves(results)) or [_NOT, ""])),
        *("## Floors", "", _FLOOR, *(list(floors(results)) or [_NOT, ""])),
        *("## Growth", "", _GROWTH, *(list(growth(results)) or [_NOT, ""])),
        *("## Profile", "", _PROFILE, *(list(rebuilds(results)) or [_NOT, ""])),
        *_failed(results),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _introduction(results: Results) -> Iterator[str]:
    yield _FIRST.format(**results.machine, gigabytes=results.machine["memory"] / 1e9)
    for engine, versions in results.versions.items():
        kind = results.names[engine][SITES[engine].rival]
        yield f"- {SITES[engine].label}: engine version {versions['engine']}; nodes with containerd"
        yield f"  {versions['containerd'].lstrip('v')}; the rival is `{kind}`."
    yield "- Images have random content, new for every round, except those of Debian packages."
    yield "  Larger images have fewer rounds and contestants; the tables list them. All numbers are"
    yield "  measured."


def _verdict(results: Results) -> Iterator[str]:
    """Yield the targets that were missed, and those that were not measured."""
    yield f"Targets apply to images of {TARGET_SIZE} MB."
    asked = [duel for duel in results.duels(TARGET_SIZE) if duel.target]
    wanted = {(engine, case) for engine, site in SITES.items() for case in site.targets}
    if absent := len(wanted - {(duel.engine, duel.case) for duel in asked}):
        yield f"Of {len(wanted)}, {absent} were not measured in this run."
    missed = [duel for duel in asked if not duel.met]
    if asked and not missed:
        yield "All measured targets were reached."
    if missed:
        yield "These were missed:"
        yield ""
        yield from map(_miss, missed)


def _miss(duel: Duel) -> str:
    name = f"{SITES[duel.engine].label}, {words(duel.case)}"
    return f"- {name}: {duel.ratio:.2f} x as fast; the target is {duel.target:g} x"


def _failed(results: Results) -> Iterator[str]:
    found = list(remarks(results))
    if found:
        yield from ("## Not measured", "", *found)
