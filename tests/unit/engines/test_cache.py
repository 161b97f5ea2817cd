"""What is remembered between runs, and what becomes of a file that others have damaged."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.engines.cache import EngineCache, Layers
from imgload.oci.digest import Digest

ENGINE, OTHER = "unix:///run/docker.sock", "unix:///run/podman.sock"
PUSHED, DIFF_ID = Digest.of(b"compressed"), Digest.of(b"layer")
LAYERS: Layers = {PUSHED: (DIFF_ID, 123)}
ENTRY = {str(PUSHED): [str(DIFF_ID), 123]}
DAY = 24 * 3600.0


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of what is remembered, in a folder that is not there yet."""
    path = tmp_path / "cache" / "imgload"
    monkeypatch.setattr("imgload.engines.cache.state_folder", lambda: path)
    return path / "engines.json"


def written(file: Path, value: object) -> EngineCache:
    """Return what is understood of a file with the content given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return EngineCache.load()


def test_memory_is_empty_at_first(file: Path) -> None:
    """And writes nothing while it only asks."""
    memory = EngineCache.load()
    assert (memory.layers(ENGINE), memory.is_unreachable(ENGINE)) == ({}, False)
    assert not file.parent.exists()


def test_memory_persists(file: Path) -> None:
    """Of that engine only."""
    EngineCache.load().record_layers(ENGINE, LAYERS)
    EngineCache.load().mark_unreachable(OTHER)
    memory = EngineCache.load()
    assert (memory.layers(ENGINE), memory.layers(OTHER)) == (LAYERS, {})
    assert (memory.is_unreachable(ENGINE), memory.is_unreachable(OTHER)) == (False, True)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_memory_has_its_own_additions(file: Path) -> None:
    """A loader that is reused does not read the file again."""
    memory = EngineCache.load()
    memory.record_layers(ENGINE, LAYERS)
    memory.mark_unreachable(ENGINE)
    file.unlink()
    assert memory.layers(ENGINE) == LAYERS
    assert memory.is_unreachable(ENGINE)


def test_learn_adds_and_replaces(file: Path) -> None:
    """The last that was learnt of a digest counts."""
    del file
    more: Layers = {Digest.of(b"2"): (DIFF_ID, 2)}
    corrected: Layers = {PUSHED: (Digest.of(b"another"), 5)}
    for layers in (LAYERS, more, corrected):
        EngineCache.load().record_layers(ENGINE, layers)
    assert EngineCache.load().layers(ENGINE) == {**more, **corrected}


def test_memory_merges_two_runs(file: Path) -> None:
    """Both had read the file before either wrote it."""
    one, two = EngineCache.load(), EngineCache.load()
    more: Layers = {Digest.of(b"2"): (DIFF_ID, 2)}
    one.record_layers(ENGINE, LAYERS)
    two.record_image_id(ENGINE, PUSHED, DIFF_ID)
    two.record_layers(ENGINE, more)
    one.mark_unreachable(OTHER)
    memory = EngineCache.load()
    assert memory.layers(ENGINE) == {**LAYERS, **more}
    assert memory.image_id(ENGINE, PUSHED) == DIFF_ID
    assert memory.is_unreachable(OTHER)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_memory_merges_parallel_processes(file: Path) -> None:
    """Each entry is one write of the whole file."""
    program = (
        "import sys; from imgload.engines.cache import EngineCache\n"
        "from imgload.oci.digest import Digest\n"
        "memory = EngineCache.load()\n"
        "for i in range(25):\n"
        "    digest = Digest.of(f'{sys.argv[1]} {i}'.encode())\n"
        "    memory.record_image_id('engine', digest, digest)"
    )
    environ = {**os.environ, "XDG_CACHE_HOME": str(file.parent.parent)}
    runs = [subprocess.Popen([sys.executable, "-c", program, name], env=environ) for name in "abcd"]
    assert [run.wait() for run in runs] == [0] * len(runs)
    kept = json.loads(file.read_text())["engine"]["image_ids.2"]
    assert len(kept) == 25 * len(runs)


def test_memory_is_written_despite_a_held_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgload.core.state._LOCK_PAUSE", 0)
    file.parent.mkdir(parents=True)
    descriptor = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    EngineCache.load().record_layers(ENGINE, LAYERS)
    os.close(descriptor)
    assert EngineCache.load().layers(ENGINE) == LAYERS


def test_learn_without_layers_writes_nothing(file: Path) -> None:
    """Most loads learn nothing."""
    EngineCache.load().record_layers(ENGINE, {})
    assert not file.exists()


def test_taught_returns_compressed_layers(file: Path) -> None:
    """A digest that is its own diff ID was pushed as it is."""
    del file
    memory = EngineCache.load()
    memory.record_layers(ENGINE, {**LAYERS, Digest.of(b"plain"): (Digest.of(b"plain"), 1)})
    assert memory.known_layers(ENGINE) == {DIFF_ID}
    assert memory.known_layers(OTHER) == set()


@pytest.mark.usefixtures("file")
def test_last_build_returns_the_stored_id() -> None:
    EngineCache.load().record_build(ENGINE, "app", PUSHED)
    assert EngineCache.load().last_build(ENGINE, "app") == PUSHED
    assert EngineCache.load().last_build(ENGINE, "other") is None
    assert EngineCache.load().last_build(OTHER, "app") is None


def test_image_id_returns_the_stored_id(file: Path) -> None:
    """For the engine that pushed it; what is no digest is nothing."""
    EngineCache.load().record_image_id(ENGINE, PUSHED, DIFF_ID)
    assert EngineCache.load().image_id(ENGINE, PUSHED) == DIFF_ID
    assert EngineCache.load().image_id(OTHER, PUSHED) is None
    file.write_text(file.read_text().replace(str(DIFF_ID), "sha256:none"))
    assert EngineCache.load().image_id(ENGINE, PUSHED) is None


def test_image_id_ignores_entries_of_older_versions(file: Path) -> None:
    """Some were wrong, and an ID is never asked for again."""
    assert (
        written(file, {ENGINE: {"image_ids": {str(PUSHED): str(DIFF_ID)}}}).image_id(ENGINE, PUSHED)
        is None
    )


def test_learn_drops_the_oldest_layers(file: Path) -> None:
    """The file stays small; what was confirmed lately is not old."""
    many = {Digest.of(str(i).encode()): (DIFF_ID, i) for i in range(2001)}
    first, second, *_ = many
    memory = EngineCache.load()
    memory.record_layers(ENGINE, dict(list(many.items())[:2000]))
    memory.record_layers(ENGINE, {first: many[first]})
    memory.record_layers(ENGINE, dict(list(many.items())[2000:]))
    known = EngineCache.load().layers(ENGINE)
    assert len(known) == 2000
    assert first in known
    assert second not in known
    assert file.stat().st_size < 1 << 20


INNER: list[object] = [None, 3, "x", [], [1], {"a": 1}, {"a": []}]
SHAPES: list[object] = [
    *(None, True, 0, "text", [], [[]], {}, {ENGINE: None}, {ENGINE: []}, {ENGINE: "x"}),
    *({ENGINE: {"layers": inner, "cut_off": inner}} for inner in INNER),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_a_wrong_shape_is_replaced(file: Path, shape: object) -> None:
    """Another version of imgload or an editor may have written the file."""
    memory = written(file, shape)
    assert (memory.layers(ENGINE), memory.is_unreachable(ENGINE)) == ({}, False)
    memory.record_layers(ENGINE, LAYERS)
    memory.mark_unreachable(ENGINE)
    assert EngineCache.load().layers(ENGINE) == LAYERS
    assert EngineCache.load().is_unreachable(ENGINE)


DAMAGE = {
    "empty": b"",
    "cut off": json.dumps({ENGINE: {"layers": {}}}).encode()[:-3],
    "zeros": bytes(4096),
    "not UTF-8": b'{"\xff\xfe": 1}',
    "too long": b" " * (5 << 20) + json.dumps({ENGINE: {"layers": ENTRY}}).encode(),
    "a long number": b'{"x": ' + b"9" * 5000 + b"}",
    "nested": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_replaced(file: Path, damage: str) -> None:
    """The disk was full, or the machine lost power."""
    memory = written(file, DAMAGE[damage])
    assert memory.layers(ENGINE) == {}
    memory.record_layers(ENGINE, LAYERS)
    assert EngineCache.load().layers(ENGINE) == LAYERS


@pytest.mark.parametrize(
    "entry",
    [
        *(None, 1, "x", [], {}, ["x", 1], [str(DIFF_ID)], [str(DIFF_ID), 1, 2]),
        *([1, 1], [None, 1], [str(DIFF_ID), None], [str(DIFF_ID), "x"], [str(DIFF_ID), []]),
        *([str(DIFF_ID), float("inf")], [str(DIFF_ID), float("nan")], [str(DIFF_ID), -1]),
    ],
)
def test_layers_skips_invalid_entries(file: Path, entry: object) -> None:
    """A size that no layer can have is wrong, too: a stream would be framed by it."""
    layers: dict[str, Any] = {str(Digest.of(b"2")): entry, **ENTRY}
    assert written(file, {ENGINE: {"layers": layers}}).layers(ENGINE) == LAYERS


@pytest.mark.parametrize("key", ["", "x", "sha256:", "md5:" + "0" * 32, str(PUSHED).upper()])
def test_layers_skips_invalid_digests(file: Path, key: str) -> None:
    """Only a digest can have been pushed."""
    value = {key: [str(DIFF_ID), 1], **ENTRY}
    assert written(file, {ENGINE: {"layers": value}}).layers(ENGINE) == LAYERS


@pytest.mark.parametrize(
    ("age", "cut_off"),
    [(0.0, True), (DAY - 60, True), (DAY + 60, False), (-3600.0, False), (-1e12, False)],
)
def test_being_cut_off_is_forgotten_after_a_day(file: Path, age: float, *, cut_off: bool) -> None:
    """It is tried again then; a time to come is a clock that was wrong."""
    memory = written(file, {ENGINE: {"cut_off": {"since": time.time() - age}}})
    assert memory.is_unreachable(ENGINE) is cut_off


WRONG_TIMES = ["null", '"now"', "[]", "{}", "NaN", "Infinity", "-Infinity", "1e999", "9" * 400]


@pytest.mark.parametrize("since", [*WRONG_TIMES, f"-{WRONG_TIMES[-1]}"], ids=lambda text: text[:9])
def test_cut_off_ignores_an_invalid_time(file: Path, since: str) -> None:
    """The engine counts as reachable."""
    text = f'{{"{ENGINE}": {{"cut_off": {{"since": {since}}}}}}}'
    assert not written(file, text.encode()).is_unreachable(ENGINE)


def test_memory_works_without_a_writable_folder(file: Path) -> None:
    """A file in the folder's place: also root cannot write there."""
    file.parent.parent.mkdir()
    file.parent.write_text("in the way")
    memory = EngineCache.load()
    memory.record_layers(ENGINE, LAYERS)
    memory.mark_unreachable(ENGINE)
    assert memory.layers(ENGINE) == LAYERS
    assert memory.is_unreachable(ENGINE)
    assert file.parent.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_memory_ignores_another_users_folder(file: Path) -> None:
    """`XDG_CACHE_HOME` may be shared, and open to all."""
    EngineCache.load().record_layers(ENGINE, LAYERS)
    os.chown(file.parent, 12345, -1)
    EngineCache.load().record_layers(OTHER, LAYERS)
    assert EngineCache.load().layers(OTHER) == {}
    os.chown(file, 12345, -1)
    assert EngineCache.load().layers(ENGINE) == {}


def test_a_failed_write_leaves_nothing_behind(file: Path) -> None:
    """No piles of temporary files: here a folder has the file's name."""
    file.mkdir(parents=True)
    memory = EngineCache.load()
    memory.record_layers(ENGINE, LAYERS)
    assert list(file.parent.iterdir()) == [file]
    assert memory.layers(ENGINE) == LAYERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([ENGINE, "layers", "cut_off", "since", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_memory_accepts_any_json(value: Any) -> None:
    """Never an error: it is only a cache."""
    memory = EngineCache(Path("/dev/null/absent"), value if isinstance(value, dict) else {})
    assert all(isinstance(digest, Digest) for digest in memory.layers(ENGINE))
    assert memory.is_unreachable(ENGINE) in {True, False}
    memory.record_layers(ENGINE, LAYERS)
    assert memory.layers(ENGINE)[PUSHED] == LAYERS[PUSHED]


def test_one_failed_connection_of_a_node_blocks_pulls_for_a_minute(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine under load may take a second; only the second time counts for an hour."""
    del file
    now, gateways = time.time(), ("10.0.0.1",)
    monkeypatch.setattr("time.time", lambda: now)
    EngineCache.load().record_blocked_pulls(ENGINE, gateways)
    assert EngineCache.load().blocks_pulls(ENGINE, gateways)
    assert not EngineCache.load().blocks_pulls(ENGINE, ("10.0.0.2",))
    now += 100
    assert not EngineCache.load().blocks_pulls(ENGINE, gateways)
    EngineCache.load().record_blocked_pulls(ENGINE, gateways)
    now += 3000
    assert EngineCache.load().blocks_pulls(ENGINE, gateways)
    now += 1000
    assert not EngineCache.load().blocks_pulls(ENGINE, gateways)


def test_plain_sizes_are_kept_for_all_engines(file: Path) -> None:
    EngineCache.load().record_plain_sizes({DIFF_ID: 5, Digest.of(b"2"): 0})
    assert EngineCache.load().plain_sizes() == {DIFF_ID: 5, Digest.of(b"2"): 0}
    assert written(file, {"any": {"plain": {"x": 1, str(DIFF_ID): -1}}}).plain_sizes() == {}
