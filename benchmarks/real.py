"""Images like those that people build: Debian with Python, and a single program."""

import secrets
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, get_args

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


Content = Literal["real", "zstd", "forty", "binary"]
"""Debian packages in four layers, with gzip or zstd; the same in forty layers; and one program."""
REAL: tuple[Content, ...] = get_args(Content)
_FORTY = 40
_PROGRAM = "usr/sbin/dockerd"
"""Of the package docker.io: a program in Go, like those that people copy into an empty image."""


@cache
def real_archive(packages: Path, folder: Path, size: int, form: str, content: Content) -> Image:
    """Return the archive of an image; write it once in a run.

    Args:
        packages: where downloads are kept.
        folder: where the archive is written.
        size: of the plain layers, in MB; the program is as large as it is.
        form: of the archive.
        content: of the image.

    """
    with tempfile.TemporaryDirectory(dir=folder) as trees:
        layers = list(_layers(Path(trees), Suite("bookworm", packages), size, content))
        target = folder / f"{content}-{size}-{form}.tar"
        return pack(layers, target, form, "zstd" if content == "zstd" else "gzip")


def _layers(trees: Path, suite: Suite, size: int, content: Content) -> Iterator[Path]:
    """Unpack the packages of each layer, bottom up."""
    layers = [["docker.io"]] if content == "binary" else choose(size)
    if content == "forty":
        chosen = [package for layer in layers for package in layer]
        layers = [chosen[number::_FORTY] for number in range(_FORTY)]
    for number, chosen in enumerate(layers):
        layer = trees / f"layer{number}"
        layer.mkdir()
        if content == "binary":
            suite.unpack(trees / "unpacked", *chosen)
            (trees / "unpacked" / _PROGRAM).rename(layer / "program")
        else:
            suite.unpack(layer, *chosen)
        (layer / "build-id").write_text(secrets.token_hex(16))  # no engine knows it
        yield layer
