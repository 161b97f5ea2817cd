"""Which containerd a container runs, and recorded and damaged output of it and ctr."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import (
    CONTAINERD,
    K3S,
    LOOK,
    Containerd,
    ContentStore,
    CriAnswer,
    inspect_image,
    parse_content,
    parse_inspect,
    parse_look,
    parse_records,
    parse_snapshots,
    parse_snapshotter,
    parse_version,
)
from imgload.core.errors import ImgloadError, NodeUnusable
from imgload.oci.digest import Digest, chain_ids
from tests.unit.recordings import MYAPP, VERSIONS, inspected, recorded

LOADED = ("1.7", "2.1")
MANIFEST = Digest("sha256", "0eb7be528ec45deeaea8c9a17aede083a7a7bc8b7241ddfce668f2683b712c7f")
CONFIG = Digest("sha256", "a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4")


def text(version: str, what: str) -> str:
    return recorded(version, what).decode()


@pytest.mark.parametrize(("version", "parsed"), [("1.6", (1, 6)), ("1.7", (1, 7)), ("2.1", (2, 1))])
def test_parse_version_reads_the_server(version: str, parsed: tuple[int, int]) -> None:
    """Despite the suffixes of Debian and Go."""
    assert parse_version(text(version, "version")) == parsed


@pytest.mark.parametrize(
    ("said", "parsed"),
    [
        ("Client:\n  Version: 2.0.0\n\nServer:\n  Version:  v1.7.24\n", (1, 7)),
        ("Server:\n  Version:  10.21.3-rc.1+k3s1\n", (10, 21)),
        ("Client:\n  Version: 2.0.0\n", (0, 0)),
        ("", (0, 0)),
        ("Server:\n  Version:  unknown\n", (0, 0)),
    ],
)
def test_parse_version_without_a_server_is_the_oldest(said: str, parsed: tuple[int, int]) -> None:
    """The client's version does not count."""
    assert parse_version(said) == parsed


def test_parse_version_survives_5000_digits() -> None:
    """Python refuses to convert them to a number."""
    assert parse_version(f"Server:\n  Version:  {'1' * 5000}.0\n") == (0, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_parse_snapshotter_reads_real_configurations(version: str) -> None:
    """Versions 2 and 3, dumped by containerd (kind #2543, #3871)."""
    assert parse_snapshotter(text(version, "config")) == "overlayfs"


CONFIGS = {
    1: '[plugins.cri.containerd]\nsnapshotter = "native"',
    2: 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"',
    3: "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'",
    4: "version = 4\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'",
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_config_version_is_understood(config: str) -> None:
    """Also version 4, which kind does not know yet (kind #3871)."""
    assert parse_snapshotter(config) == "native"


@pytest.mark.parametrize(
    "config",
    [
        "version = 3",
        "plugins = 5",
        "plugins = ['a']",
        "[plugins]\n'io.containerd.cri.v1.images' = 5",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = ''",
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nsnapshotter = 'native'",
        "[plugins.'io.containerd.transfer.v1.local'.unpack_config]\nsnapshotter = 'native'",
    ],
)
def test_a_config_without_the_setting_has_the_documented_default(config: str) -> None:
    """The snapshotter of another plugin or another runtime is not CRI's."""
    assert parse_snapshotter(config) == "overlayfs"


@pytest.mark.parametrize(
    "config",
    [
        "",
        "\n",
        "not toml at all {{{",
        "time=x level=warning msg=y\n[plugins",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 5",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = '; reboot'",
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
    ],
)
def test_an_unreadable_config_has_no_snapshotter(config: str) -> None:
    """There is no fallback; tomllib raises other errors for endless nesting."""
    assert parse_snapshotter(config) is None


@pytest.mark.parametrize(
    "config",
    [
        (
            "[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'x'\n"
            "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nsnapshotter = 'native'"
        ),
        (
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'overlayfs'\n"
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nsnapshotter = 'native'"
        ),
    ],
)
def test_the_default_runtimes_snapshotter_takes_precedence(config: str) -> None:
    """Pods without a RuntimeClass use it (containerd internal/cri RuntimeSnapshotter)."""
    assert parse_snapshotter(config) == "native"


@pytest.mark.parametrize("version", LOADED)
def test_parse_records_reads_all_records(version: str) -> None:
    """Names with their targets, including junk of other tools."""
    assert {r.name: r.target for r in parse_records(text(version, "images"))} == {
        MYAPP: MANIFEST,
        f"import-2026-11-23@{MANIFEST}": MANIFEST,
        str(CONFIG): MANIFEST,
    }


@pytest.mark.parametrize("version", LOADED)
def test_records_without_cris_label_are_not_in_cri(version: str) -> None:
    """Whatever other labels they have (containerd #9039)."""
    listed = text(version, "images")
    managed = "io.cri-containerd.image=managed"
    lines = [
        line.replace(managed, "-", 1) if MYAPP in line else line for line in listed.split("\n")
    ]
    texts = (listed, "\n".join(lines), listed.replace(managed, f"a=b,{managed}"))
    not_in_cri = [{r.name for r in parse_records(t) if not r.in_cri} for t in texts]
    assert not_in_cri == [set(), {MYAPP}, set()]


@pytest.mark.parametrize("version", LOADED)
def test_parse_content_reads_blobs_and_configs(version: str) -> None:
    """containerd labels each manifest with its config."""
    content = parse_content(text(version, "content"))
    assert content.configs == {MANIFEST: CONFIG}
    assert len(content.blobs) == 5
    assert content.blobs >= {MANIFEST, CONFIG}
    assert content.configs_under(MANIFEST) == {CONFIG}
    assert content.configs_under(CONFIG) == frozenset()


@pytest.mark.parametrize("version", LOADED)
def test_a_recorded_image_has_all_of_its_layers(version: str) -> None:
    """containerd labels a manifest with its layers, and a layer that it has unpacked."""
    content = parse_content(text(version, "content"))
    diff_ids = [
        Digest.parse(d) for d in inspected(version)["info"]["imageSpec"]["rootfs"]["diff_ids"]
    ]
    assert content.stored_layers(MANIFEST, diff_ids) == set(diff_ids)
    assert content.forms_of(diff_ids[:2]) == {d: d for d in diff_ids[:2]}


def listed(
    *layers: bytes, stored: str = "", unpacked: dict[bytes, bytes] | None = None
) -> ContentStore:
    """Return a store with a manifest, and of its layers those in `stored`."""
    label = "containerd.io/gc.ref.content"
    labels = sorted([f"{label}.l.{n}={Digest.of(x)}" for n, x in enumerate(layers)])
    rows = [
        f"{MANIFEST}\t1B\tx\t{','.join([f'{label}.config={CONFIG}', *labels])}",
        f"{CONFIG}\t1B\tx\t-",
    ]
    for letter in stored.encode():
        blob = bytes([letter])
        diff_id = Digest.of((unpacked or {}).get(blob, blob))
        rows.append(f"{Digest.of(blob)}\t1B\tx\tcontainerd.io/uncompressed={diff_id}")
    return parse_content("DIGEST\n" + "\n".join(rows) + "\n")


def test_layers_keep_their_order_beyond_ten() -> None:
    """ctr sorts labels as text."""
    names = [bytes([letter]) for letter in b"abcdefghijklmnop"]
    content = listed(*names, stored="abcdefghijklmnop")
    assert content.layers[MANIFEST] == tuple(map(Digest.of, names))


A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


@pytest.mark.parametrize(
    ("content", "diff_ids", "stored"),
    [
        (listed(b"a", b"b", stored="ab"), (A, B), {A, B}),
        (listed(b"a", b"b", stored="b"), (A, B), {B}),
        (listed(stored="ab"), (A, B), set()),
        (listed(b"a", stored="a"), (A, B), set()),
        (listed(), (), set()),
        (listed(b"a", b"b", b"a", stored="ab"), (A, B, A), {A, B}),
        (listed(b"a", b"c", b"c", stored="a"), (A, B, C), {A}),
        (listed(b"x", b"b", stored="xb", unpacked={b"x": b"a"}), (A, B), {A, B}),
        (listed(b"x", b"b", stored="xb", unpacked={b"x": b"c"}), (A, B), {B}),
        (listed(b"x", b"x", stored="x", unpacked={b"x": b"a"}), (A, A), {A}),
    ],
    ids=[
        "complete",
        "one absent",
        "discarded",
        "too few",
        "no layers",
        "repeated",
        "one blob for two layers",
        "compressed",
        "the blob of another layer",
        "repeated and compressed",
    ],
)
def test_stored_layers(
    content: ContentStore, diff_ids: tuple[Digest, ...], stored: set[Digest]
) -> None:
    assert content.stored_layers(MANIFEST, diff_ids) == stored


def test_the_layers_of_a_manifest_without_a_row_are_unknown() -> None:
    """For example of another container runtime."""
    assert ContentStore(frozenset([MANIFEST])).stored_layers(MANIFEST, (A,)) is None


@pytest.mark.parametrize("version", LOADED)
def test_parse_snapshots_returns_the_images_chain_ids(version: str) -> None:
    """The last one is CRI's chainID."""
    info = inspected(version)["info"]
    diff_ids = tuple(map(Digest.parse, info["imageSpec"]["rootfs"]["diff_ids"]))
    chain = chain_ids(diff_ids)
    parents = dict(zip(chain, (None, *chain), strict=False))
    assert parse_snapshots(text(version, "snapshots")) == parents


def test_an_empty_node_has_nothing() -> None:
    """Recorded on 1.6: three headings."""
    assert parse_records(text("1.6", "images")) == []
    assert parse_content(text("1.6", "content")) == ContentStore()
    assert parse_snapshots(text("1.6", "snapshots")) == {}


def test_only_committed_snapshots_count() -> None:
    """A snapshot that is still being unpacked is Active."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    said = (
        f"KEY PARENT KIND\n{one}  Committed\n{two} {one} Active\nextract-1 sha256:x {one} Active\n"
    )
    assert parse_snapshots(said) == {one: None}


def index_of(*children: Digest) -> str:
    labels = ",".join(f"containerd.io/gc.ref.content.m.{i}={c}" for i, c in enumerate(children))
    return f"{Digest.of(b'index')}\t1kB\t1 minute\t{labels}\n"


def test_an_index_leads_to_the_configs_below_it() -> None:
    """The record of a multi-platform image points to its index."""
    one, two = Digest.of(b"one"), Digest.of(b"two")
    label = "containerd.io/gc.ref.content.config="
    rows = f"{one}\t1B\tx\t{label}{CONFIG}\n{two}\t1B\tx\t{label}{MANIFEST}\n"
    content = parse_content("DIGEST\n" + index_of(one, two) + rows)
    assert content.configs_under(Digest.of(b"index")) == {CONFIG, MANIFEST}


def test_there_under_returns_the_images_blobs_on_the_node() -> None:
    """Without blobs that the node lacks, and without other images' blobs."""
    manifest, kept, gone = (Digest.of(name) for name in (b"manifest", b"kept", b"gone"))
    label = "containerd.io/gc.ref.content"
    refs = f"{label}.config={CONFIG},{label}.l.0={kept},{label}.l.1={gone}"
    rows = (
        f"{manifest}\t1B\tx\t{refs}\n{CONFIG}\t1B\tx\t-\n{kept}\t1B\tx\t-\n{MANIFEST}\t1B\tx\t-\n"
    )
    content = parse_content("DIGEST\n" + index_of(manifest) + rows)
    assert content.blobs_under(Digest.of(b"index")) == {
        Digest.of(b"index"),
        manifest,
        CONFIG,
        kept,
    }


def test_an_index_that_lists_itself_ends_the_search() -> None:
    """Labels cannot make it endless."""
    index = Digest.of(b"index")
    assert parse_content("DIGEST\n" + index_of(index, index)).configs_under(index) == frozenset()
    assert parse_content("DIGEST\n" + index_of(index, index)).blobs_under(index) == {index}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_import_uses_cris_snapshotter_and_one_platform(version: str) -> None:
    """kind #2543, and #3795: --all-platforms fails; --digests leaves junk (kind #4028)."""
    snapshotter = parse_snapshotter(text(version, "config")) or ""
    command = containerd.import_command(snapshotter, "linux/arm64", local=version == "2.1")
    assert command[:5] == ("ctr", "-n", "k8s.io", "images", "import")
    assert {"--snapshotter=overlayfs", "--platform=linux/arm64"} < set(command)
    assert ("--local" in command) is (version == "2.1")
    assert command[-1] == "-"
    assert not {"--all-platforms", "--digests", "--base-name"} & set(command)


PARSERS: list[Callable[[str], object]] = [
    parse_version,
    parse_snapshotter,
    parse_records,
    parse_content,
    parse_snapshots,
]
recorded_texts = st.sampled_from(
    [text(v, w) for v in VERSIONS for w in ("version", "config", "images", "content", "snapshots")]
)


@given(recorded_texts, st.data())
def test_parsers_accept_damaged_output(said: str, data: st.DataObject) -> None:
    """Cut, and with junk in it: no exception."""
    start = data.draw(st.integers(0, len(said)))
    end = data.draw(st.integers(start, min(len(said), start + 40)))
    mangled = said[:start] + data.draw(st.text(max_size=20)) + said[end:]
    for parse in PARSERS:
        try:
            parse(mangled)
        except ImgloadError as error:
            pytest.fail(f"these parsers answer with nothing, not with {error}")


@given(st.text() | st.text("sha256:0f \t\n", max_size=300))
def test_parsers_accept_any_output(said: str) -> None:
    """They return valid digests only."""
    assert all(isinstance(record.target, Digest) for record in parse_records(said))
    assert all(isinstance(d, Digest) for d in parse_snapshots(said))
    assert all(isinstance(d, Digest) for d in parse_content(said).blobs)
    major, minor = parse_version(said)
    assert major >= 0
    assert minor >= 0


USUAL = "socket /run/containerd/containerd.sock\n"
OF_K3S = "socket /run/k3s/containerd/containerd.sock\n"
BOTH = "program ctr\nprogram crictl\n"


def test_commands_on_a_usual_node_are_unchanged() -> None:
    """kind's and minikube's."""
    assert CONTAINERD.resolve_command(containerd.CONTENT) == containerd.CONTENT
    assert CONTAINERD.resolve_command(["uname", "-m"]) == ("uname", "-m")


def test_k3s_needs_its_own_address() -> None:
    """Before the other arguments; other programs are unchanged."""
    assert K3S.resolve_command(containerd.CONTENT)[:3] == (
        "ctr",
        "--address",
        "/run/k3s/containerd/containerd.sock",
    )
    assert K3S.resolve_command(containerd.CONTENT)[3:] == containerd.CONTENT[1:]
    assert K3S.resolve_command(["uname", "-m"]) == ("uname", "-m")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [(USUAL + BOTH, CONTAINERD), (OF_K3S + BOTH, K3S), (USUAL + OF_K3S + BOTH, K3S)],
)
def test_parse_look_recognises_containerd_by_its_socket(printed: str, expected: object) -> None:
    """Where k3s runs, pods run on its containerd."""
    assert parse_look(printed) == expected


@pytest.mark.parametrize("runtime", [CONTAINERD, K3S])
def test_crictl_connects_to_the_containerds_own_socket(runtime: Containerd) -> None:
    """Both endpoints: /etc/crictl.yaml may name others."""
    words = runtime.resolve_command(["crictl", "inspecti", "app"])
    endpoint = f"unix://{runtime.socket}"
    assert words[-7:] == ("crictl", "-r", endpoint, "-i", endpoint, "inspecti", "app")


def test_missing_programs_are_subcommands_of_k3s() -> None:
    """And k3s knows the address."""
    found = parse_look(f"{OF_K3S}program k3s\n")
    assert found.resolve_command(["ctr", "version"]) == ("k3s", "ctr", "version")
    assert found.resolve_command(["crictl", "images"])[4:6] == ("k3s", "crictl")
    assert found.config == K3S.config


@pytest.mark.parametrize("printed", ["", BOTH, "socket /run/docker.sock\n", "\0" * 1000])
def test_parse_look_refuses_a_container_without_containerd(printed: str) -> None:
    """The error names the sockets."""
    with pytest.raises(NodeUnusable, match=r"/run/containerd/containerd\.sock") as caught:
        parse_look(printed)
    assert "imgload clusters" in caught.value.hint


K0S = """exe /var/lib/k0s/bin/containerd
file /etc/k0s/containerd.toml
root /var/lib/k0s/containerd
address /run/k0s/containerd.sock
socket /run/k0s/containerd.sock
"""


def test_the_options_of_the_running_containerd_take_precedence() -> None:
    """Over its configuration, which it dumps itself; ctr may be part of k0s."""
    config = 'config\nroot = "/other"\n[grpc]\naddress = "/other.sock"\n'
    assert parse_look(f"{K0S}program k0s\n{config}") == Containerd(
        programs={"ctr": ("k0s", "ctr")},
        config=("/var/lib/k0s/bin/containerd", "config", "dump"),
        root="/var/lib/k0s/containerd",
        socket="/run/k0s/containerd.sock",
    )


def test_a_configuration_names_root_and_socket() -> None:
    """As RKE2's, whose ctr is beside its containerd."""
    folder = "/var/lib/rancher/rke2"
    config = f'root = "{folder}/agent/containerd"\n[grpc]\naddress = "/run/x.sock"\n'
    found = parse_look(
        f"exe {folder}/bin/rke2\nfile {folder}/config.toml\nroot \naddress \n"
        f"program ctr {folder}/bin/ctr\nconfig\n{config}"
    )
    assert found.programs == {"ctr": (f"{folder}/bin/ctr", "--address", "/run/x.sock")}
    assert (found.root, found.config) == (
        f"{folder}/agent/containerd",
        ("cat", f"{folder}/config.toml"),
    )


@pytest.mark.parametrize("value", ["", "relative", "/a/../b", "/a b", "/a$(id)"])
def test_a_path_of_other_characters_is_ignored(value: str) -> None:
    """It would become part of commands in hints."""
    text = f"exe {value}\nfile {value}\nroot {value}\naddress {value}\n"
    assert parse_look(f"{text}{BOTH}config\nroot = {json.dumps(value)}\n") == CONTAINERD


def test_a_running_containerd_without_options_has_the_usual_paths() -> None:
    """Even if its socket is missing; then it does not answer."""
    found = parse_look(f"exe /usr/bin/containerd\nfile \nroot \naddress \n{BOTH}config\n")
    assert (found.socket, found.root) == (CONTAINERD.socket, CONTAINERD.root)
    assert found.config == ("/usr/bin/containerd", "config", "dump")


@given(st.text())
def test_parse_look_accepts_any_output(text: str) -> None:
    with suppress(NodeUnusable):
        assert isinstance(parse_look(text), Containerd)


def test_parse_look_refuses_a_containerd_without_ctr() -> None:
    """Nothing can control it."""
    with pytest.raises(NodeUnusable, match="no ctr"):
        parse_look(f"{USUAL}program crictl\n")


def test_look_is_one_shell_with_a_fixed_script() -> None:
    """Nothing from outside is in it."""
    shell, option, script = LOOK
    assert (shell, option) == ("sh", "-c")
    assert "/run/k3s/containerd/containerd.sock" in script


ID = "sha256:a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4"


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_parse_inspect_reads_the_image_id(version: str) -> None:
    """status.id is the config's digest."""
    answer = parse_inspect(Output(0, recorded(version, "inspect")))
    assert answer == CriAnswer(Digest.parse(ID))
    assert inspected(version)["status"]["id"] == ID


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_name_is_a_denial(version: str) -> None:
    """crictl exits with 1 and reports it on stderr."""
    assert b"no such image" in recorded(version, "absent")
    assert parse_inspect(Output(1, b"")) == CriAnswer(None)


@pytest.mark.parametrize("status", [126, 127])
def test_a_node_without_crictl_gives_no_answer(status: int) -> None:
    """`cri` is null then, and never true."""
    assert parse_inspect(Output(status, b"")) is None


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        encode({"status": None}),
        encode({"status": "x"}),
        encode({"status": []}),
        encode({"status": {}}),
        encode({"status": {"id": None}}),
        encode({"status": {"id": "sha256:short"}}),
        encode({"status": {"id": 5}}),
        b"[" * 100_000,
        b'{"status":' * 100_000,
        b'{"status": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_an_invalid_answer_is_a_failure(stdout: bytes) -> None:
    """Neither a denial nor a crash."""
    answer = parse_inspect(Output(0, stdout))
    assert answer
    assert answer.image_id is None
    assert answer.failure


@given(st.data())
def test_a_damaged_answer_has_an_id_or_none(data: st.DataObject) -> None:
    """Cut anywhere, junk anywhere: the right ID, none, or another digest."""
    raw = recorded("2.1", "inspect")
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    answer = parse_inspect(Output(0, raw[:start] + data.draw(st.binary(max_size=9)) + raw[end:]))
    assert answer is not None
    assert answer.image_id is None or isinstance(answer.image_id, Digest)


@given(st.integers(0, 255), st.binary())
def test_parse_inspect_accepts_any_output(status: int, stdout: bytes) -> None:
    """Without an exception."""
    answer = parse_inspect(Output(status, stdout))
    assert (answer is None) is (status in {126, 127})


def test_the_name_is_one_argument() -> None:
    """Even with a space in it."""
    assert inspect_image("app v1")[-1] == "app v1"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_denial_is_not_a_failure(version: str) -> None:
    """With crictl's stderr."""
    assert parse_inspect(Output(1, recorded(version, "absent"))) == CriAnswer(None)


def test_a_crictl_that_does_not_connect_is_an_error() -> None:
    """It has the reason, and is no statement about the image."""
    said = (
        b'time="2026-11-29T03:00:00Z" level=fatal msg="validate service connection: validate CRI v1'
        b' image API for endpoint \\"unix:///run/x.sock\\": rpc error: code = Unavailable"\n'
    )
    with pytest.raises(NodeUnusable, match="validate service connection"):
        parse_inspect(Output(1, said))
    failed = parse_inspect(Output(1, b"rpc error: not initialized"))
    assert failed == CriAnswer(None, "rpc error: not initialized")
