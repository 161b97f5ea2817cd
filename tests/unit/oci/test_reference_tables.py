"""Names, and what the parsers of others make of them.

A row has a name and its normal form, or None if the name is invalid. The first table follows the
rules of distribution/reference, which the kubelet, CRI and containerd use; the others have the
kinds of names for which kind and k3d have rules of their own. A row of three is parsed otherwise
here, and says why.
"""

from __future__ import annotations

import pytest

from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference, image_id_prefix, parse_unless_id

HEX = "0123456789abcdef" * 4
SUM = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX * 2}"
LONGEST = "p" * 247  # 255 with "library/": the limit of a path

Row = tuple[str, str | None] | tuple[str, str | None, str]
DISTRIBUTION: tuple[Row, ...] = (
    # a registry has a dot or a port, or is localhost, or is not in lower case
    ("shop", "docker.io/library/shop:latest"),
    ("team/shop", "docker.io/team/shop:latest"),
    ("library/shop", "docker.io/library/shop:latest"),
    ("docker.io/shop", "docker.io/library/shop:latest"),
    ("index.docker.io/shop", "docker.io/library/shop:latest"),
    ("index.docker.io/team/shop:1", "docker.io/team/shop:1"),
    ("docker.io/library/team/shop", "docker.io/library/team/shop:latest"),
    ("localhost/shop", "localhost/shop:latest"),
    ("localhost/team/shop", "localhost/team/shop:latest"),
    ("HOST/shop", "HOST/shop:latest"),
    ("Host/team/shop", "Host/team/shop:latest"),
    ("host:80/shop", "host:80/shop:latest"),
    ("host:80/shop:2", "host:80/shop:2"),
    ("host.example/shop", "host.example/shop:latest"),
    ("host.example:80/team/shop:2", "host.example:80/team/shop:2"),
    ("a.b-c.example/x/y/z:1", "a.b-c.example/x/y/z:1"),
    ("xn--mgba.example/shop:xn--mgba.example", "xn--mgba.example/shop:xn--mgba.example"),
    ("10.0.0.1/shop", "10.0.0.1/shop:latest"),
    ("10.0.0.1:80/shop:90", "10.0.0.1:80/shop:90"),
    ("[fd00::5]/shop", "[fd00::5]/shop:latest"),
    ("[fd00::5]:80/shop:2", "[fd00::5]:80/shop:2"),
    ("[fd00:1:2:3:4:5:6:7]/team/shop", "[fd00:1:2:3:4:5:6:7]/team/shop:latest"),
    ("[::1]:80/shop", "[::1]:80/shop:latest"),
    # otherwise it is part of the path, and what follows its colon is a tag
    ("host.example", "docker.io/library/host.example:latest"),
    ("host.example:80", "docker.io/library/host.example:80"),
    ("10.0.0.1:80", "docker.io/library/10.0.0.1:80"),
    ("host_name.example:80", "docker.io/library/host_name.example:80"),
    ("host_name/shop", "docker.io/host_name/shop:latest"),
    ("team/host_name.example:80", "docker.io/team/host_name.example:80"),
    ("a/b/c/d/e/f/g", "docker.io/a/b/c/d/e/f/g:latest"),
    # paths: lower case, digits, and separators between them
    ("my-shop", "docker.io/library/my-shop:latest"),
    ("my---shop", "docker.io/library/my---shop:latest"),
    ("my__shop/web", "docker.io/my__shop/web:latest"),
    ("my.shop-1.2", "docker.io/library/my.shop-1.2:latest"),
    (LONGEST, f"docker.io/library/{LONGEST}:latest"),
    (f"{LONGEST}p", None),
    (f"{HEX[:-1]}", f"docker.io/library/{HEX[:-1]}:latest"),
    (f"docker.io/{HEX}", f"docker.io/library/{HEX}:latest"),
    ("my..shop", None),
    ("my_.shop", None),
    ("my-.shop", None),
    ("my___shop", None),
    ("-shop", None),
    ("shop-", None),
    ("_shop/_web", None),
    ("team//shop", None),
    ("team/", None),
    ("/shop", None),
    ("team/Shop", None),
    ("Shop:1", None),
    ("host:80/Team/shop", None),
    ("sh$op", None),
    ("-host.example/shop", None),
    ("https://host.example/shop", None),
    ("[fd00::5]", None),
    ("[fd00::5]:80", None),
    ("fd00::5:80/shop", None),
    ("[fe80::5%en0]/shop", None),
    ("[fd00::10.0.0.1]/shop", None),
    # tags and digests
    ("", None),
    (":1", None),
    ("shop:", None),
    ("shop:A.b_C-1", "docker.io/library/shop:A.b_C-1"),
    (f"shop:{'t' * 128}", f"docker.io/library/shop:{'t' * 128}"),
    (f"shop:{'t' * 129}", None),
    (f"shop@{SUM}", f"docker.io/library/shop@{SUM}"),
    (f"shop:1@{SUM}", f"docker.io/library/shop:1@{SUM}"),
    (f"host:80/shop:1@{SUM}", f"host:80/shop:1@{SUM}"),
    (f"@{SUM}", None),
    (f"shop@sha256:{HEX[:34]}", None),
    (f"shop@digest:{HEX}", None),
    # by ID
    (HEX, SUM),
    (SUM, SUM),
    (
        f"shop@{SHA512}",
        f"docker.io/library/shop@{SHA512}",
        "its own tests know only sha256; containerd knows both, and nodes have such names",
    ),
)
KIND: tuple[Row, ...] = (
    # a tag beside a digest is dropped in containerd's record
    (f"web:1@{SUM}", f"docker.io/library/web@{SUM}"),
    (f"team/web:1@{SUM}", f"docker.io/team/web@{SUM}"),
    (f"registry.example/team/web:1@{SUM}", f"registry.example/team/web@{SUM}"),
    (f"localhost:5000/web@{SUM}", f"localhost:5000/web@{SUM}"),
    ("registry.k8s.io/web:1", "registry.k8s.io/web:1"),
    ("localhost:5000/web", "localhost:5000/web:latest"),
    ("hub/web", "docker.io/hub/web:latest"),
)
K3D: tuple[Row, ...] = (
    # with and without registry, port and tag, and with deep paths
    ("hub/web:1", "docker.io/hub/web:1"),
    ("hub/a/b/c/web", "docker.io/hub/a/b/c/web:latest"),
    ("hub:80/web", "hub:80/web:latest"),
    ("hub:80/a/b/c/web:1", "hub:80/a/b/c/web:1"),
    ("docker.io/library/web", "docker.io/library/web:latest"),
    ("docker.io/hub/web:1", "docker.io/hub/web:1"),
)


@pytest.mark.parametrize("row", [*DISTRIBUTION, *KIND, *K3D], ids=lambda row: f"{row[0]:.60}")
def test_a_name_means_the_same(row: Row) -> None:
    """The name in a pod spec, or that in containerd's record, which has no tag beside a digest."""
    name, expected = row[:2]
    if expected is None:
        with pytest.raises(ReferenceInvalid):
            Reference.parse(name)
    elif expected.startswith("sha256:"):
        assert parse_unless_id(name) is None
        assert image_id_prefix(name) == expected.removeprefix("sha256:")
    else:
        reference = Reference.parse(name)
        assert expected in {str(reference), reference.record}
