"""Reports of the benchmarks from given samples; nothing is timed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import marks
from benchmarks.clock import Clock
from benchmarks.contestants import Sample
from benchmarks.floor import Floor
from benchmarks.growth import COSTS, fit, lines
from benchmarks.measure import Usage
from benchmarks.page import DOCS, main_size, page
from benchmarks.phases import START, phases
from benchmarks.plan import STANDARD, Part, Wish, schedule
from benchmarks.plot import Scale, svg
from benchmarks.results import Key, Results
from benchmarks.sites import ARCHIVES, CONTESTANTS, ENGINES
from benchmarks.table import duels, floors, growth, rebuilds, serves

SVG = "{http://www.w3.org/2000/svg}"


def sample(seconds: float, written: int | None = 0, *, action: str | None = None) -> Sample:
    usage = Usage(seconds, cpu=seconds / 2, peak=30_000_000, written=written)
    return Sample(usage, sent=int(seconds * 1e6), action=action)


@pytest.fixture
def results() -> Results:
    """kind takes a second for 100 MB, imgload a tenth of that."""
    made = Results(machine={"cores": 2}, names={"docker": {"kind": "kind 1"}})
    for size in 300, 600:
        made.samples[Key("docker", size, "cold", "kind")] = [sample(size / 100)] * 2
        made.samples[Key("docker", size, "cold", "imgload")] = [sample(size / 1000, action="full")]
    made.floors["docker", 600, "rebuild"] = [Floor(push=0.1, load=0.2)]
    made.phases["docker", 600] = [{START: 0.25, "push": 0.35}]
    return made


def test_results_survive_json(results: Results) -> None:
    """A run can be reported again."""
    text = json.dumps(results.to_json())
    assert Results.of_json(json.loads(text)) == results


def test_results_survive_a_file(results: Results, tmp_path: Path) -> None:
    """The file has a line for each row."""
    results.write(tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text()
    assert Results.of_json(json.loads(text)) == results
    assert len(text.splitlines()) > len(results.samples)


def test_ratios_are_of_medians_and_targets_are_for_one_size(results: Results) -> None:
    """The target of 1.9 x is for 600 MB; 300 MB has no target."""
    results.samples[Key("docker", 600, "cold", "kind")] = [sample(s) for s in (1, 6, 60)]
    (small,), (large,) = list(results.duels(300)), list(results.duels(600))
    assert [small.ratio, large.ratio] == pytest.approx([10, 10])
    assert [(duel.target, duel.met) for duel in (small, large)] == [(None, None), (1.9, True)]


def test_the_first_rebuild_is_compared_with_an_ordinary_one(results: Results) -> None:
    """kind has no special first rebuild."""
    results.samples[Key("docker", 600, "rebuild", "kind")] = [sample(6)]
    results.samples[Key("docker", 600, "learning", "imgload")] = [sample(12)]
    ratios = {duel.case: duel.ratio for duel in results.duels(600)}
    assert ratios == {"cold": pytest.approx(10), "learning": 0.5}


def test_the_table_marks_missed_targets(results: Results) -> None:
    """In bold."""
    results.samples[Key("docker", 600, "cold", "imgload")] = [sample(5, action="full")]
    row = next(line for line in duels(results) if "6.00" in line)
    assert row == (
        "| Docker 20.10, graphdriver | cold | 6.00 | 5.00 | 1.20 x | 1.9 x | **no** | full |"
    )


def test_the_floor_of_a_rebuild_is_the_sum_of_its_parts(results: Results) -> None:
    """0.6 seconds against 0.3, of which imgload may take 1.6 times as long."""
    results.samples[Key("docker", 600, "rebuild", "imgload")] = [sample(0.6)]
    row = "one-line rebuild | 0.100 | 0.200 | 0.300 | 0.600 | 2.00 x | 1.6 x | **no** |"
    assert f"| Docker 20.10, graphdriver | {row}" in list(floors(results))


def test_the_floor_of_a_cold_load_is_its_longer_part(results: Results) -> None:
    """The parts can overlap; images of another size have no limit."""
    for size in 300, 600:
        results.floors["docker", size, "cold"] = [Floor(push=0.5, load=0.3, overlaps=True)]
    small, large = (line for line in floors(results) if "| cold |" in line)
    assert small.endswith("| 0.500 | 0.300 | 0.500 | 0.300 | 0.60 x |  |  |")
    assert large.endswith("| 0.500 | 0.300 | 0.500 | 0.600 | 1.20 x | 1.3 x | yes |")


def test_the_floor_of_an_archive_has_no_push(results: Results) -> None:
    """The file is there already."""
    results.samples[Key("oci-archive", 60, "cold", "imgload")] = [sample(2)]
    results.floors["oci-archive", 60, "cold"] = [Floor(0, 1, overlaps=True)]
    assert "| OCI archive | cold |  | 1.000 | 1.000 | 2.000 | 2.00 x |  |  |" in list(
        floors(results)
    )


def test_serve_is_compared_with_load(results: Results) -> None:
    """Both with a container's start; images of another size have no limit."""
    for size, serve in (300, 2), (600, 3):
        results.samples[Key("docker", size, "serve-cold", "imgload")] = [sample(2)]
        results.samples[Key("docker", size, "serve-cold", "serve")] = [sample(serve)]
    small, large = (line for line in serves(results) if line.startswith("| Docker 20.10"))
    assert small.endswith("| 2.00 | 2.00 | 1.00 x |  |  |")
    assert large.endswith("| 2.00 | 3.00 | 1.50 x | 1.2 x | **no** |")


def test_the_total_of_a_profile_is_the_median_of_totals(results: Results) -> None:
    """Totals of 0.5, 0.7 and 1.2 seconds; the sum of the phases' medians would be 0.6."""
    profiles = [{START: 0.1, "push": 0.4}, {START: 0.6, "push": 0.1}, {START: 0.2, "push": 1.0}]
    results.phases["docker", 600] = profiles
    assert "| **imgload, all** | **0.700** |" in list(rebuilds(results))


def test_a_floor_without_a_load_is_not_shown(results: Results) -> None:
    """There would be nothing to compare."""
    assert list(floors(results)) == []


def test_a_line_has_the_slope_of_its_points() -> None:
    """Two seconds, and one more for each 100 MB."""
    points = [(size, [sample(2 + size / 100)]) for size in (60, 600, 3000)]
    line = fit("docker", "100 MB", "cold", "kind", points)
    assert dict(zip(COSTS, line.slopes, strict=True)) == {
        "s": pytest.approx(1),
        "CPU s": pytest.approx(0.5),
        "peak MB": pytest.approx(0),
        "into nodes MB": pytest.approx(1),
        "written MB": pytest.approx(0),
    }
    assert line.start == pytest.approx(2)


def test_a_cost_that_was_not_measured_has_no_line() -> None:
    """The other costs have one."""
    points = [(1, [sample(1, None)]), (2, [sample(2)])]
    slopes = dict(zip(COSTS, fit("docker", "node", "cold", "kind", points).slopes, strict=True))
    assert slopes["written MB"] is None
    assert slopes["s"] == pytest.approx(1)


def test_lines_need_two_points(results: Results) -> None:
    """The samples have two sizes, and one number of nodes."""
    assert {(line.unit, line.who) for line in lines(results)} == {
        ("100 MB", "kind"),
        ("100 MB", "imgload"),
    }
    assert any("| 100 MB | cold | imgload | 0.100 |" in line for line in growth(results))


def test_the_line_of_layers_starts_at_the_cold_load(results: Results) -> None:
    """The cold load has eight layers."""
    results.samples[Key("docker", 600, "layers:32", "kind")] = [sample(9)]
    points_by_unit = {line.unit: line.xs for line in lines(results) if line.who == "kind"}
    assert points_by_unit == {"100 MB": (300, 600), "10 layers": (8, 32)}


def test_sizes_are_not_mixed_in_a_line(results: Results) -> None:
    """Each size has its own row; one number of layers or nodes in two sizes is not a line."""
    for size in 300, 600:
        results.samples[Key("docker", size, "two", "imgload")] = [sample(size / 500)]
        results.samples[Key("docker", size, "layers:32", "kind")] = [sample(size / 50)]
    del results.samples[Key("docker", 300, "cold", "kind")]
    points_by_line = {(line.case, line.unit, line.who): line.xs for line in lines(results)}
    assert points_by_line == {
        ("cold", "100 MB", "imgload"): (300, 600),
        ("cold, 300 MB", "node", "imgload"): (1, 2),
        ("cold, 600 MB", "node", "imgload"): (1, 2),
        ("cold, 600 MB", "10 layers", "kind"): (8, 32),
    }


def test_a_phase_lasts_until_the_next() -> None:
    """A phase that begins twice is summed up."""
    seen = [("survey", 2.0), ("push", 3.0), ("survey", 5.0)]
    assert phases(1.5, seen, 6.0) == {START: 0.5, "survey": 2.0, "push": 2.0}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in marks.BEGINS for name in marks.BEGINS[module]]
)
def test_marked_functions_exist(module: str, name: str) -> None:
    """Otherwise a renamed function would be counted in another phase."""
    assert callable(attrgetter(name)(import_module(module)))


def test_a_run_with_marks_behaves_like_imgload(tmp_path: Path) -> None:
    """With imgload's exit status, and the phases until its end."""
    report = tmp_path / "marks.json"
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none", "HOME": str(tmp_path)}
    words = ["load", "app:dev", "--from", "docker"]
    argv = [sys.executable, "-P", marks.__file__, str(report), *words]
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert done.returncode == 5
    assert [phase for phase, _ in json.loads(report.read_text())] == ["find engines and nodes"]


def test_the_scale_is_logarithmic() -> None:
    """All decades have the same width."""
    scale = Scale.over([0.2, 30.0])
    assert (scale.low, scale.high) == (-1, 2)
    assert scale.place(1) - scale.place(0.1) == pytest.approx(scale.place(100) - scale.place(10))


def test_the_plot_has_a_dot_for_each_median(results: Results) -> None:
    """Inside the picture, in addition to the dots of the legend; and no script."""
    drawn = ET.fromstring(svg(results, 600))
    width = float(drawn.attrib["viewBox"].split()[2])
    dots = [float(dot.attrib["cx"]) for dot in drawn.iter(f"{SVG}circle")]
    assert len(dots) == len(CONTESTANTS) + 2
    assert all(0 < position < width for position in dots)
    assert not list(drawn.iter(f"{SVG}script"))
    assert "10.0 x" in "".join(drawn.itertext())


def test_the_plot_has_the_ratios_of_the_table(results: Results) -> None:
    """Also for the first rebuild, which kind treats like any other."""
    results.samples[Key("docker", 600, "rebuild", "kind")] = [sample(6)]
    results.samples[Key("docker", 600, "learning", "imgload")] = [sample(12)]
    assert "0.5 x" in "".join(ET.fromstring(svg(results, 600)).itertext())


def test_the_standard_plan_is_used_without_options() -> None:
    """A selection of engines only restricts it."""
    assert Wish().parts() == list(STANDARD)
    narrowed = Wish(engines=["podman"]).parts()
    assert {engine for part in narrowed for engine in part.engines} == {"podman"}
    assert all(part.size <= 600 for part in narrowed)


def test_archives_have_only_the_cases_without_an_engine() -> None:
    """No engine builds their images; without such a case, they are omitted."""
    engines, archives = Wish(sizes=[20], cases=["rebuild", "real"]).parts()
    assert (engines.engines, engines.cases) == (ENGINES, ["rebuild", "real"])
    assert (archives.engines, archives.cases) == (ARCHIVES, ["real"])
    (part,) = Wish(sizes=[20], cases=["tag"]).parts()
    assert part.engines == ENGINES


def test_large_images_have_one_round_by_default() -> None:
    """One round of kind and imgload; explicit options override that."""
    small, large = Wish(sizes=[20, 3000], engines=ENGINES).parts()
    assert (small.rounds, large.rounds) == (3, 1)
    assert large.contestants_on("podman") == ["archive", "imgload"]
    (part,) = Wish(ENGINES, sizes=[3000], rounds=2, contestants=["ctr"]).parts()
    assert (part.rounds, part.contestants_on("docker")) == (2, ["ctr"])


def test_cases_for_imgload_alone_are_not_run_with_others() -> None:
    """Cases in which kind would only take long."""
    part = Part(3000, 1, ("cold",), alone=("rebuild",))
    assert (part.cases_of("kind"), part.cases_of("imgload")) == (["cold"], ["cold", "rebuild"])


def test_first_rounds_come_first_and_large_images_last() -> None:
    """So that rounds that are skipped for lack of time were measured before, or are listed."""
    parts = [
        Part(1, 2, engines=("docker", "podman")),
        Part(3000, 1, engines=("docker",)),
        Part(2, 2, engines=("docker",)),
    ]
    assert [(part.size, number, engine) for part, number, engine in schedule(parts)] == [
        (1, 1, "docker"),
        (1, 1, "podman"),
        (2, 1, "docker"),
        (1, 2, "docker"),
        (1, 2, "podman"),
        (2, 2, "docker"),
        (3000, 1, "docker"),
    ]


def test_the_time_of_a_round_is_estimated() -> None:
    """By weight, from the next smaller size."""
    clock = Clock(limit=1000)
    clock.took(Part(60, 1, ("cold",)), "docker", 24.0)
    clock.took(Part(600, 1, ("cold",), ("imgload",)), "docker", 6.0)
    clock.took(Part(600, 1, ("cold",), ("imgload",)), "docker", 9.0)
    large = Part(3000, 1, ("cold", "rebuild"), ("imgload",))
    assert clock.expected(large, "docker") == pytest.approx(60)
    assert clock.expected(Part(60, 1, ("cold",)), "docker") == pytest.approx(24)
    assert clock.expected(large, "podman") == 0
    assert clock.allows(large, "docker")
    assert not Clock(limit=0).allows(large, "docker")


def test_the_page_is_generated_from_the_committed_samples() -> None:
    """docs/benchmarks.json; `python -m benchmarks --read docs/benchmarks.json --write-docs`."""
    kept = Results.of_json(json.loads((DOCS / "benchmarks.json").read_text()))
    assert (DOCS / "benchmarks.md").read_text() == page(kept)
    assert (DOCS / "benchmarks.svg").read_text() == svg(kept, main_size(kept))
