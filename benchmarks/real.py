"""An image like those that people build: Debian with Python, in four layers."""

import secrets
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.archives import pack
from benchmarks.images import Image
from tests.lab.debian import Suite

_BASE = """
libpython3.11-stdlib=8 libpython3.11-minimal=5 python3.11-minimal=7 libc6=13 bash=7 coreutils=18
perl-base=8 dpkg=6 apt=4 libstdc++6=3 tzdata=3 perl-modules-5.36=18 libpython3.11=8 python3-pip=7
python3-setuptools=3
"""
_LIBRARIES = "libopenblas0-pthread=43 libgfortran5=3 libfreetype6=1 libssl3=6"
_NUMERICAL = """
python3-numpy=26 python3-pandas=20 python3-pandas-lib=17 python3-matplotlib=19
python-matplotlib-data=9 python3-scipy=63
"""
_FRAMEWORKS = """
python3-azure=543 ansible=259 libboost1.74-dev=138 libllvm15=115 python3-botocore=79
python3-plotly=44 python3-sympy=32 python3-skimage=28 python3-django=24 python3-statsmodels=23
python3-astropy=21 python3-sklearn-lib=15 python3-skimage-lib=14 python3-twisted=13
python3-sklearn=11 ansible-core=8
"""
LAYERS = (_BASE, _LIBRARIES, _NUMERICAL, _FRAMEWORKS)
"""Packages of Debian 12 by layer, bottom up, with about the MB (10^6 bytes) that they unpack to."""


def choose(size: int) -> list[list[str]]:
    """Return packages by layer that together unpack to about `size` MB, or all if they are less."""
    left = size

    def fitting(packages: str) -> Iterator[str]:
        nonlocal left
        for package, megabytes in (word.split("=") for word in packages.split()):
            if int(megabytes) <= left:
                left -= int(megabytes)
                yield package

    return [list(fitting(packages)) for packages in LAYERS]


@cache
def real_archive(packages: Path, folder: Path, size: int, form: str) -> Image:
    """Return the archive of an image whose layers have about `size` MB; write it once in a run.

    Args:
        packages: where downloads are kept.
        folder: where the archive is written.
        size: of the plain layers.
        form: of the archive.

    """
    with tempfile.TemporaryDirectory(dir=folder) as trees:
        layers = []
        for number, chosen in enumerate(choose(size)):
            layer = Path(trees) / f"layer{number}"
            layer.mkdir()
            Suite("bookworm", packages).unpack(layer, *chosen)
            (layer / "build-id").write_text(secrets.token_hex(16))  # no engine knows it
            layers.append(layer)
        return pack(layers, folder / f"real-{size}-{form}.tar", form)
