# Set-up that scripts/test and scripts/demo share. To be sourced; enters the project's directory.

CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

say() { printf '%s\n' "$*" >&2; }

# The first Python >= 3.11 on PATH; $PYTHON, if set, is tried first.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "error: Python 3.11 or newer is needed and none was found (tried PYTHON, python3, python3.11 to 3.14)"
    return 1
}

# other_python MAIN: the newest Python that pyproject.toml names and that runs here, other than
# MAIN ("3.11"): on PATH, or beside the first Python, as pyenv installs them (its shims may not run).
other_python() {
    local version candidate
    for version in $(sed -n 's/.*Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml | sort -rV); do
        [ "$version" = "$1" ] && continue
        for candidate in "python$version" $(pythons_of_pyenv "$version"); do
            if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
                command -v "$candidate"
                return
            fi
        done
    done
    return 1
}

# pythons_of_pyenv VERSION: paths of the interpreters of this minor version, newest first.
pythons_of_pyenv() {
    local root
    for root in "${PYENV_ROOT-}" "${HOME-}/.pyenv"; do
        [ -z "$root" ] || ls -d "$root/versions/$1".*[0-9]/bin/python 2>/dev/null
    done | sort -rVu
}

# create_venv DIR PYTHON. Debian's python3 has no ensurepip: another pip then installs pip.
create_venv() {
    local venv=$1 python=$2
    say "Creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 && return
    "$python" -m venv --clear --without-pip "$venv" &&
        "$python" -m pip --python "$venv/bin/python" install --quiet pip >&2 && return
    say "error: cannot create $venv: $python needs the venv module and pip"
    return 1
}

# prepare_venv EXTRA [DIR PYTHON]: a working environment with the project and that extra, in DIR
# with PYTHON; without them in .venv with the first Python found. Quick if nothing changed.
prepare_venv() {
    local extra=$1 venv=${2:-.venv} python=${3-} stamp wanted
    stamp=$venv/installed
    if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=${python:-$(find_python)} || return 1
        create_venv "$venv" "$python" || return 1
    fi
    # A moved or copied checkout must not run the code of the original.
    wanted="$PWD $(cksum <pyproject.toml)"
    # What `dev` installs includes every other extra.
    grep -qxF -e "$wanted $extra" -e "$wanted dev" "$stamp" 2>/dev/null && return
    say "Installing the project's packages into $venv (extra: $extra)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" >&2 || {
        say "error: pip could not install the project's packages (its own message is above)"
        return 1
    }
    printf '%s\n' "$wanted $extra" >"$stamp"
}

# Debian packages for tests: servers, which tests start privately; faketime, for servers with a wrong
# clock; iptables, which breaks links between hosts in namespaces; the browser and the proxy for tests
# of the console. No system service starts: MariaDB's -core packages have none, and policy-rc.d keeps
# Redis's from starting.
install_servers() {
    install_missing redis-server redis-server redis-sentinel redis-sentinel ip iproute2 iptables iptables faketime faketime \
        mariadbd "mariadb-server-core mariadb-client-core" \
        chromium "chromium fonts-dejavu-core" nginx nginx-light
}

# Programs with which some tests check shipped files; without a program, its tests are skipped.
install_tools() {
    install_missing docker-compose docker-compose zsh zsh fish fish prometheus prometheus
}

# install_missing COMMAND PACKAGES …: install Debian packages for missing commands.
install_missing() {
    local packages=() as_root=()
    while [ $# -gt 0 ]; do
        # shellcheck disable=SC2206  # several packages in one word
        PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || packages+=($2)
        shift 2
    done
    [ ${#packages[@]} -eq 0 ] && return
    if ! command -v apt-get >/dev/null; then
        say "note: not installed, and no apt-get to install them with: ${packages[*]}"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            say "note: not installed, and only root can: apt-get install ${packages[*]}"
            return
        fi
        as_root=(sudo -n)
    fi
    say "Installing ${packages[*]}"
    "${as_root[@]}" bash -s -- "${packages[@]}" >&2 <<'ROOT' || say "note: apt-get could not install: ${packages[*]}"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
ROOT
}
