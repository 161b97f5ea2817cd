"""Names are parsed like in the kubelet (distribution's reference package)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id

SHA = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "ab" * 64

VALID = {
    "app": "docker.io/library/app:latest",
    "app:v1": "docker.io/library/app:v1",
    "o/app": "docker.io/o/app:latest",
    "a/b/c/d": "docker.io/a/b/c/d:latest",
    "docker.io/app": "docker.io/library/app:latest",
    "docker.io/o/app": "docker.io/o/app:latest",
    "index.docker.io/app": "docker.io/library/app:latest",
    "index.docker.io/o/app:1": "docker.io/o/app:1",
    "library/app": "docker.io/library/app:latest",
    "localhost": "docker.io/library/localhost:latest",
    "localhost:5000": "docker.io/library/localhost:5000",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app": "localhost:5000/app:latest",
    "ghcr.io/o/app:v1": "ghcr.io/o/app:v1",
    "host:80/app": "host:80/app:latest",
    "UPPER/app": "UPPER/app:latest",
    "Reg.Example.COM:443/o/app:V1": "Reg.Example.COM:443/o/app:V1",
    "127.0.0.1/app": "127.0.0.1/app:latest",
    "[::1]:5000/app": "[::1]:5000/app:latest",
    "[2001:DB8::1]/app:v1": "[2001:DB8::1]/app:v1",
    "xn--bcher-kva.example/app": "xn--bcher-kva.example/app:latest",
    f"app@{SHA}": f"docker.io/library/app@{SHA}",
    f"app:v1@{SHA}": f"docker.io/library/app:v1@{SHA}",
    f"ghcr.io/o/app@{SHA512}": f"ghcr.io/o/app@{SHA512}",
    "my-org/my__app.x/y---z": "docker.io/my-org/my__app.x/y---z:latest",
    "0/1:2": "docker.io/0/1:2",
    "app:_-.": "docker.io/library/app:_-.",
    "a" * 64 + ":v1": "docker.io/library/" + "a" * 64 + ":v1",
    "a" * 63: "docker.io/library/" + "a" * 63 + ":latest",
    "a" * 247: "docker.io/library/" + "a" * 247 + ":latest",
    "ghcr.io/" + "a" * 255: "ghcr.io/" + "a" * 255 + ":latest",
    "app:" + "v" * 128: "docker.io/library/app:" + "v" * 128,
}

INVALID = [
    "",
    " ",
    "/",
    "/app",
    "app/",
    "a//b",
    "ghcr.io/",
    "ghcr.io//app",
    "app:",
    ":v1",
    "app@",
    "app@sha256",
    "app@sha256:",
    "app@sha256:abc",
    f"app@{SHA.upper()}",
    f"app@sha256:{'A' * 64}",
    f"app@{SHA}0",
    f"app@{SHA}@{SHA}",
    f"@{SHA}",
    f"app:v1:v2@{SHA}",
    "app@md5:" + "0" * 32,
    "App",
    "o/App:v1",
    "ghcr.io/App",
    "-app",
    "app-",
    "_app",
    ".app",
    "app.",
    "a..b",
    "a___b",
    "a._b",
    "a/.b",
    "..",
    "../app",
    "a/../b",
    "app:-v",
    "app:.v",
    "app:v 1",
    "app:v/1",
    "app:v1:v2",
    "app:" + "v" * 129,
    "a" * 248,
    "docker.io/" + "a" * 248,
    "ghcr.io/" + "a" * 256,
    "ghcr.io:port/app",
    "ghcr.io:/app",
    "host:80:80/app",
    "-host.io/app",
    "ho_st.io/app",
    "[::1/app",
    "[::g]/app",
    "http://ghcr.io/app",
    "docker://app",
    "app\n",
    "\napp",
    "app:v1\n",
    "ghcr.io\n/app",
    f"app@{SHA}\n",
    "app\t",
    "app\0",
    "àpp",
    "app:v²",
    "app:v\N{ARABIC-INDIC DIGIT ONE}",
    "\N{FULLWIDTH DIGIT ONE}app",
    "host:\N{FULLWIDTH DIGIT ONE}/app",
    "\N{KELVIN SIGN}.io/app",
    "app:\N{LATIN SMALL LETTER LONG S}",
    "app;id",
    "$(id)",
    "`id`",
    "app&&id",
    "app|id",
    "app'",
    'app"',
    "a b",
    "app*",
    "~app",
    "app\\x",
    "a,b",
    "app#x",
    "app?x=1",
]


@pytest.mark.parametrize(("text", "normal"), VALID.items())
def test_a_name_is_normalised_like_in_kubernetes(text: str, normal: str) -> None:
    """Omitted parts are docker.io, library/ and :latest (kind #2955, #3013)."""
    assert str(Reference.parse(text)) == normal


@pytest.mark.parametrize("text", INVALID)
def test_reference_rejects_names_that_kubernetes_rejects(text: str) -> None:
    """The error repeats the name and shows how one is written."""
    with pytest.raises(ReferenceInvalid) as caught:
        Reference.parse(text)
    assert repr(text)[1:40] in caught.value.message
    assert "REPOSITORY" in caught.value.hint


@pytest.mark.parametrize("text", ["docker://app:dev", "https://ghcr.io/me/app"])
def test_a_scheme_is_named_as_the_reason(text: str) -> None:
    """As in skopeo's names, and in an address that was pasted from a browser."""
    with pytest.raises(ReferenceInvalid, match=f"'{text.partition('//')[0]}//' is not part"):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["a" * 64, "0123456789abcdef" * 4])
def test_reference_rejects_64_hexadecimal_digits(text: str) -> None:
    """Distribution keeps them for image IDs: "cannot specify 64-byte hexadecimal strings"."""
    with pytest.raises(ReferenceInvalid):
        Reference.parse(text)


def test_an_error_message_stays_short() -> None:
    """A pasted file does not fill the terminal."""
    with pytest.raises(ReferenceInvalid) as caught:
        Reference.parse("A" * 100_000)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("text", VALID)
def test_the_familiar_form_means_the_same(text: str) -> None:
    """What people read in messages is what they may type."""
    assert Reference.parse(Reference.parse(text).familiar) == Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("app", "app:latest"),
        ("docker.io/library/app:v1", "app:v1"),
        ("docker.io/o/app", "o/app:latest"),
        ("docker.io/library/a/b:v1", "library/a/b:v1"),
        ("ghcr.io/library/app:v1", "ghcr.io/library/app:v1"),
    ],
)
def test_familiar_is_the_shortest_form(text: str, familiar: str) -> None:
    """library/ goes only where it comes back by itself: before one single part."""
    assert Reference.parse(text).familiar == familiar


def test_record_drops_the_tag_before_a_digest() -> None:
    """CRI keeps `app:v1@sha256:…` as `app@sha256:…`, and `app:v1` as it is (kind #2394)."""
    assert Reference.parse(f"app:v1@{SHA}").record == f"docker.io/library/app@{SHA}"
    assert Reference.parse("app:v1").record == "docker.io/library/app:v1"


@pytest.mark.parametrize(
    ("text", "always"),
    [
        ("app", True),
        ("app:latest", True),
        ("app:v1", False),
        (f"app@{SHA}", False),
        (f"app:latest@{SHA}", False),
    ],
)
def test_pulls_always_is_true_for_latest(text: str, *, always: bool) -> None:
    """The kubelet's default policy for :latest, written or not, is Always (kind #328)."""
    assert Reference.parse(text).pulls_always is always


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("app:v1", "localhost/app:v1"),
        ("o/app", "localhost/o/app:latest"),
        ("library/app", "localhost/library/app:latest"),
    ],
)
def test_on_localhost_is_the_name_of_a_build_by_podman(text: str, local: str) -> None:
    """`podman build -t app:v1` makes localhost/app:v1 (podman #15974)."""
    assert Reference.parse(text).is_short
    assert str(Reference.parse(text).with_localhost()) == local


@pytest.mark.parametrize("text", ["docker.io/app", "localhost/app", "ghcr.io/o/app"])
def test_a_name_with_a_registry_is_not_short(text: str) -> None:
    """Only a short name may mean Podman's localhost/ image."""
    assert not Reference.parse(text).is_short


names = st.one_of(
    st.text(),
    st.text("aB0._-/:@[]", max_size=30),
    st.sampled_from([*VALID, *INVALID]),
    st.from_regex(r"([a-z0-9.:]{1,9}/){0,2}[a-z0-9._-]{1,9}(:\w{1,5})?", fullmatch=True),
)


@given(names)
@example("a" * 64)
def test_a_parsed_name_parses_to_itself(text: str) -> None:
    """Any text is a name whose normal form means the same, or ReferenceInvalid; nothing else."""
    try:
        reference = Reference.parse(text)
    except ReferenceInvalid:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(str(reference)).record == reference.record
    assert str(reference).isascii()
    assert str(reference).isprintable()
    assert not set(str(reference)) & set(" ;&|$`'\"\\<>(){}*?!#~")


@pytest.mark.parametrize(
    ("text", "prefix", "full"),
    [
        ("abcd", "abcd", False),
        ("0" * 12, "0" * 12, False),
        ("0" * 63, "0" * 63, False),
        ("0" * 64, "0" * 64, True),
        ("sha256:" + "0" * 64, "0" * 64, True),
        ("sha256:abcd", "abcd", True),
        ("abc", None, False),
        ("ABCD", None, False),
        ("0" * 65, None, False),
        ("abcd\n", None, False),
        ("app", None, False),
        ("sha512:abcd", None, False),
        ("\N{FULLWIDTH DIGIT ONE}" * 12, None, False),
        ("", None, False),
    ],
)
def test_image_ids_are_recognized(text: str, prefix: str | None, *, full: bool) -> None:
    """Four to 64 lower-case digits may be one; 64, or sha256: before them, can only be one."""
    assert image_id_prefix(text) == prefix
    assert is_full_image_id(text) is full
