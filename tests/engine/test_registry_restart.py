"""`imgload registry connect` on nodes whose CRI does not read registry files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import imgload
from imgload.core.errors import NodeUnusable
from imgload.tools.remote_registry.config import with_folder
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_load import config_digest
from tests.engine.test_registry import CERTS, put, state
from tests.lab import Lab, Node
from tests.lab.cri import CriError
from tests.lab.nodeimage import CONFIGS
from tests.lab.pods import Pod, runnable
from tests.lab.registry import Registry
from tests.lab.registry import registry as running
from tests.lab.shape import K3d
from tests.lab.shell import CommandError
from tests.lab.suites import NEWEST

CLUSTER = "lab-unread"
CONFIG = "/etc/containerd/config.toml"
SET = f'config_path = "{CERTS}"'
UNSET = {
    version: config.replace(SET, f"# {SET}").replace("snapshotter =", "snapshotter  =")
    for version, config in CONFIGS.items()
}
TWO_FOLDERS = (
    CONFIGS[NEWEST]
    .replace(SET, f'config_path = "{CERTS}:/etc/docker/certs.d"')
    .replace("  discard_unpacked_layers = true\n", "")
)
"""The default since containerd 2.2: CRI treats the two as one path (containerd #12415)."""
UNREAD = {**UNSET, f"{NEWEST}, two folders": TWO_FOLDERS}
DECOY = "printf '#!/bin/sh\\nsleep 1000\\n' >/tmp/containerd; chmod +x /tmp/containerd"


@pytest.fixture(scope="module")
def registry(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that the nodes of the lab's Docker can reach."""
    with running(lab.docker, tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def make(lab: Lab) -> Iterator[Callable[[str], Node]]:
    """Return a function that creates a node with a configuration from `UNREAD`."""
    made = []

    def create(kind: str) -> Node:
        version, config = kind.partition(",")[0], UNREAD[kind]
        options = {"containerd": version, "config": config, "crictl": True}
        made.append(lab.make_cluster(name=CLUSTER, engine="docker", **options))
        return made[-1].nodes[0]

    yield create
    for cluster in made:
        cluster.remove()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imgload", "registry", *arguments, "-c", CLUSTER]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def pid(node: Node) -> str:
    return node.exec("pidof", "containerd").strip()


def reads(node: Node, registry: Registry) -> bool:
    """Return whether CRI requests an image of a mirrored name from the registry."""
    before = registry.requests.count("imgload/asked")
    with pytest.raises(CriError):
        node.cri().pull_image("localhost:5001/imgload/asked:none")
    return registry.requests.count("imgload/asked") > before


@pytest.mark.parametrize("kind", UNREAD)
def test_connect_changes_nothing_if_cri_does_not_read_the_folder(
    make: Callable[[str], Node], registry: Registry, kind: str
) -> None:
    """Exit status 1; the hint names the option."""
    node = make(kind)
    before, process = state(node), pid(node)
    ended = run("connect", registry.url, "-o", "json")
    assert ended.returncode == 1
    (result,) = json.loads(ended.stdout)["nodes"]
    assert (result["cri"], result["restarted"], result["files"]) == (False, False, [])
    assert result["error"]["kind"] == "node-unusable"
    assert "--restart-containerd" in result["error"]["hint"]
    assert (state(node), pid(node)) == (before, process)


@pytest.mark.parametrize("kind", UNREAD)
def test_connect_restarts_containerd_if_the_option_is_set(
    lab: Lab, images: Images, make: Callable[[str], Node], registry: Registry, kind: str
) -> None:
    """CRI pulls, containers keep running, and disconnect restores every byte."""
    node, tag = make(kind), unique()
    images.build(lab.docker, tag, b"x" * 1000)
    sleeper = runnable(lab.docker, node, unique("sleeper"))
    node.ctr("images", "import", "-", stdin=lab.docker.raw("save", sleeper))
    pod = Pod.run(node)
    container = pod.start(f"docker.io/library/{sleeper}")
    before, process = state(node), pid(node)
    node.exec("sh", "-c", f"{DECOY}; /tmp/containerd >/dev/null 2>&1 &")

    report = imgload.connect_registry(
        registry.url, mirrors=["localhost:5001"], cluster=CLUSTER, restart_containerd=True
    )
    assert report.ok, report.to_json()
    assert (report.nodes[0].cri, report.nodes[0].restarted) == (True, True)
    assert report.nodes[0].files[0] == CONFIG
    assert process not in pid(node).split()
    imgload.push_to_registry(tag, registry.url, source=lab.docker.url)
    pulled = node.cri().pull_image(f"localhost:5001/{tag}")
    assert pulled == config_digest(lab.docker, tag)
    again = imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True)
    assert (again.nodes[0].cri, again.nodes[0].restarted) == (True, False)

    assert "sleep 1000" in node.exec("ps", "-o", "args")
    assert imgload.disconnect_registry(cluster=CLUSTER).nodes[0].restarted
    assert state(node) == before
    assert not reads(node, registry)
    states = {c["id"]: c["state"] for c in node.cri().list_containers()}
    assert states[container] == "CONTAINER_RUNNING"
    pod.remove()
    forget(node, f"localhost:5001/{tag}")


def test_disconnect_of_a_node_that_was_never_connected_does_nothing(
    make: Callable[[str], Node],
) -> None:
    """Exit status 0, and containerd is not restarted."""
    node = make(NEWEST)
    before, process = state(node), pid(node)
    ended = run("disconnect", "-o", "json")
    assert ended.returncode == 0
    (result,) = json.loads(ended.stdout)["nodes"]
    assert (result["ok"], result["files"], result["restarted"]) == (True, [], False)
    assert (state(node), pid(node)) == (before, process)


def test_the_configuration_stays_until_the_last_registry_is_disconnected(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """The other registry still needs it."""
    node = make(NEWEST)
    before = state(node)
    other = f"http://{registry.address.partition(':')[0]}:1"
    assert imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True).ok
    unreached = imgload.connect_registry(other, mirrors=["ghcr.io"], cluster=CLUSTER)
    assert isinstance(unreached.nodes[0].error, imgload.RegistryError)
    assert unreached.nodes[0].cri
    assert not imgload.disconnect_registry(registry.url, cluster=CLUSTER).nodes[0].restarted
    assert SET in node.exec("cat", CONFIG)
    assert imgload.disconnect_registry(other, cluster=CLUSTER).nodes[0].restarted
    assert state(node) == before


def test_disconnect_keeps_the_users_own_changes(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """Only imgload's lines are removed; if they were changed, the file is not."""
    node = make(NEWEST)
    original = node.exec("cat", CONFIG)
    assert imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True).ok
    node.exec("sh", "-c", f"echo '# mine' >>{CONFIG}")
    assert imgload.disconnect_registry(cluster=CLUSTER).ok
    assert node.exec("cat", CONFIG) == f"{original}# mine\n"
    assert ".before-imgload" not in state(node)

    assert imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True).ok
    node.exec("sed", "-i", "s#^  config_path = .*#  config_path = '/elsewhere'#", CONFIG)
    changed, process = node.exec("cat", CONFIG), pid(node)
    report = imgload.disconnect_registry(cluster=CLUSTER)
    assert isinstance(report.nodes[0].error, NodeUnusable)
    assert (node.exec("cat", CONFIG), pid(node)) == (changed, process)


def test_a_configuration_that_containerd_refuses_is_restored(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """CRI refuses config_path together with mirrors, which are in an imported file here."""
    node = make(NEWEST)
    mirrors = '[plugins."io.containerd.cri.v1.images".registry.mirrors."a.example"]\n'
    put(node, "/etc/containerd/more.toml", f'version = 3\n{mirrors}endpoint = ["http://b"]\n')
    put(node, CONFIG, 'imports = ["/etc/containerd/more.toml"]\n' + node.exec("cat", CONFIG))
    restart(node)
    before = state(node)
    report = imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True)
    assert isinstance(report.nodes[0].error, NodeUnusable)
    assert state(node) == before
    assert node.cri().list_images() is not None


def test_a_killed_connect_leaves_a_working_node(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """The script on the node finishes, and disconnect restores everything."""
    node = make(NEWEST)
    before = state(node)
    process = subprocess.Popen(command("connect", registry.url, "--restart-containerd"))
    until(lambda: SET in node.exec("cat", CONFIG))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: "imgload" not in node.exec("ps", "-o", "args"))
    node.wait()
    assert node.cri().list_images() is not None
    ended = run("disconnect")
    assert ended.returncode == 0, ended.stderr
    assert state(node) == before


@pytest.mark.parametrize("then", ["connect", "disconnect"])
def test_the_next_run_continues_after_a_script_killed_before_the_restart(
    make: Callable[[str], Node], registry: Registry, then: str
) -> None:
    """The new file and the backup exist, but containerd runs with the old configuration."""
    node = make(NEWEST)
    before = state(node)
    node.exec("ln", CONFIG, f"{CONFIG}.before-imgload")
    node.exec("cp", "-p", CONFIG, f"{CONFIG}.new")
    put(node, f"{CONFIG}.new", with_folder(UNSET[NEWEST], CERTS))
    node.exec("mv", f"{CONFIG}.new", CONFIG)
    if then == "connect":
        report = imgload.connect_registry(registry.url, cluster=CLUSTER)
        assert "--restart-containerd" in report.nodes[0].error.hint  # type: ignore[union-attr]
        report = imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True)
        assert (report.ok, report.nodes[0].cri) == (True, True)
    assert imgload.disconnect_registry(cluster=CLUSTER).ok
    assert state(node) == before


def test_systemd_restarts_a_containerd_that_it_started(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """As on kind's and minikube's nodes; systemctl is a script that records its calls here."""
    node = make(NEWEST)
    script = (
        "#!/bin/sh\n"
        'echo "$*" >>/tmp/systemctl\n'
        'main=$(pidof containerd); case $1 in show) echo "MainPID=$main" ;;\n'
        "restart) kill $main; sleep 1 ;; esac\n"
    )
    put(node, "/usr/local/bin/systemctl", script)
    node.exec("sh", "-c", "chmod 755 /usr/local/bin/systemctl; mkdir -p /run/systemd/system")
    assert imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True).ok
    assert "restart containerd.service\n" in node.exec("cat", "/tmp/systemctl")
    assert imgload.disconnect_registry(cluster=CLUSTER).ok


def test_a_containerd_without_a_supervisor_is_not_stopped(
    make: Callable[[str], Node], registry: Registry
) -> None:
    """systemd runs on the node, but has not started containerd."""
    node = make(NEWEST)
    put(node, "/usr/local/bin/systemctl", "#!/bin/sh\necho MainPID=0\n")
    node.exec("sh", "-c", "chmod 755 /usr/local/bin/systemctl; mkdir -p /run/systemd/system")
    before, process = state(node), pid(node)
    report = imgload.connect_registry(registry.url, cluster=CLUSTER, restart_containerd=True)
    assert isinstance(report.nodes[0].error, NodeUnusable)
    assert (state(node), pid(node)) == (before, process)


def test_k3s_is_connected_if_it_names_a_folder_and_never_reconfigured(
    lab: Lab, registry: Registry
) -> None:
    """k3s writes the configuration at each start, and containerd is its child."""
    config = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    cluster = lab.make_cluster(name="lab-k3s", engine="docker", shape=K3d(), roles=["server"],
                               crictl=True)  # fmt: skip
    node = cluster.nodes[0]
    try:
        report = imgload.connect_registry(registry.url, cluster="lab-k3s")
        assert (report.ok, report.nodes[0].cri) == (True, True), report.to_json()
        assert imgload.disconnect_registry(cluster="lab-k3s").ok
        node.exec("sed", "-i", "/config_path/d", config)
        before = node.exec("cat", config)
        for allowed in (False, True):
            report = imgload.connect_registry(
                registry.url, cluster="lab-k3s", restart_containerd=allowed
            )
            error = report.nodes[0].error
            assert isinstance(error, NodeUnusable)
            assert "registries.yaml" in error.hint
        assert node.exec("cat", config) == before
        assert imgload.disconnect_registry(cluster="lab-k3s").ok
    finally:
        cluster.remove()


def restart(node: Node) -> None:
    """Restart containerd with its current configuration."""
    old = pid(node)
    node.exec("kill", old)
    until(lambda: pid(node) not in {"", old})
    node.wait()


def until(done: Callable[[], bool]) -> None:
    """Wait for a condition on a node; ignore failed commands while containerd restarts."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except CommandError:
            pass
        time.sleep(0.05)
    raise AssertionError("timed out after a minute")
