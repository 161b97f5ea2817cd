# Sourced by the other scripts. Installs Python, and a virtual environment with groups of pyproject.toml.
# Usage: groups="--group NAME..."; . scripts/setup.sh
# Sets $sudo to the prefix that runs a command as root.

sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -E"

has_python() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if ! has_python; then
    [ -z "$sudo" ] || echo "installing python3, python3-venv and ca-certificates: using sudo" >&2
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        python3 python3-venv ca-certificates >/dev/null
    has_python || { echo "imgload needs Python 3.11 or newer" >&2; exit 1; }
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -U 'pip>=25.1'
.venv/bin/python -m pip install -q --disable-pip-version-check -e . $groups
.venv/bin/python -m compileall -q src # like an installed package
