"""The examples of the page about the library run."""

from __future__ import annotations

import builtins

import pytest

from tests.engine.conftest import Images, forget, unique
from tests.lab import Lab
from tests.unit.test_examples import blocks


def test_every_example_of_the_library_runs(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the lab's cluster and images; nothing is built in the development loop."""
    app, database = unique(), unique("db")
    node = lab.cluster("lab-d21").nodes[0]
    images.build(lab.docker, app)
    images.build(lab.docker, database)
    names = {"app:dev": app, "db:dev": database, '"kind"': '"lab-d21"'}
    monkeypatch.setattr(builtins, "input", lambda _: "q")
    outputs = []
    for code in blocks("docs/library.md", "python"):
        for name, own in names.items():
            code = code.replace(name, own)  # noqa: PLW2901
        exec(compile(code, "library.md", "exec"), {"__name__": "__main__"})
        outputs.append(capsys.readouterr().out)
    full = [f"docker.io/library/{name}" for name in (app, database)]
    forget(node, *full)
    loaded, failed, *_, planned, concurrent = outputs
    assert loaded.split()[:3] == [full[0], node.name, "full"]
    assert failed.splitlines()[0].startswith("no image 'nope:v1' in docker")
    assert f"{full[0]} {node.name} present 0" in planned
    assert f"{full[1]} {node.name} full" in planned
    assert concurrent.splitlines() == [f"{name} True" for name in full]
