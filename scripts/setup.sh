# Sourced by the other scripts: root, Python, and a virtual environment with what is asked for.
# Usage: groups="--group NAME..."; . scripts/setup.sh     the dependency groups of pyproject.toml

if [ "$(id -u)" != 0 ]; then
    echo "starting engines and nodes takes root: asking sudo" >&2
    exec sudo -E sh "$0" "$@"
fi

has_python() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if ! has_python; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        python3 python3-venv ca-certificates >/dev/null
    has_python || { echo "imgload needs Python 3.11 or newer" >&2; exit 1; }
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -U 'pip>=25.1'
.venv/bin/python -m pip install -q --disable-pip-version-check -e . $groups
.venv/bin/python -m compileall -q src # as an installed package is
