"""The nodes that a watch loads into, for as long as it lasts."""

from pathlib import Path

import pytest

from imgload.tools.watch.selection import LastingSelection
from tests.unit.clusters.test_select import cluster, engine


def test_a_lasting_selection_keeps_its_cluster_when_the_kube_context_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context decides once, when the watch starts."""
    kubeconfig = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    kubeconfig.write_text("current-context: kind-a\n")
    selection = LastingSelection.settle(
        [engine(tmp_path, *cluster("a"), *cluster("b"))], cluster=None, names=()
    )
    kubeconfig.write_text("current-context: kind-b\n")
    assert not selection.renew()
    assert [node.name for node in selection.nodes] == ["a-control-plane"]
