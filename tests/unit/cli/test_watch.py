"""The exit status of ``imgload watch``."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imgload.tools.watch.watch import ClusterSelector, Watch, WatchedLoad
from tests.unit.cli.conftest import Run


class Interrupted(Watch):
    """A watch that the first Ctrl-C ends."""

    def __iter__(self) -> Iterator[WatchedLoad]:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("busy", "status"), [(False, 0), (True, 130)])
def test_watch_exits_with_130_only_when_a_load_is_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, busy: bool, status: int
) -> None:
    """Between two loads, Ctrl-C is the normal end of a watch."""

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Watch]:
        yield Interrupted([], ClusterSelector([], ()), [], busy=busy)

    monkeypatch.setattr(Watch, "open", opened)
    assert run("watch", "app").status == status
