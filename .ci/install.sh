#!/bin/sh
# Install what uv.lock names into a virtual environment.
#
#   .ci/install.sh VENV                 the compiler, the runtime, the tests and the linters, and nothing else
#   .ci/install.sh VENV --group NAME    a group of pyproject.toml in addition
#   .ci/install.sh VENV --latest        not the lock: the newest releases within the ranges of pyproject.toml
#   .ci/install.sh VENV --kernels       specc-kernels in addition, built from kernels/ by the compiler at hand
#
# Where uv cannot be had, pip installs .ci/requirements.txt, which is the lock in pip's form, without groups.
# Each step gives up soon where there is no network.
set -eu
cd "$(dirname "$0")/.."

venv=$1
shift
python=${PYTHON:-python3.11}
extras="bench compile cpu"
torch_index=https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_HTTP_RETRIES=1 UV_HTTP_TIMEOUT=60

# pip of the tools, at work on the environment
pip_install() {
    build/tools/bin/python -m pip --python "$venv/bin/python" install -qq --no-deps --retries 1 --timeout 20 "$@"
}

# From the folder that pip is configured to look in (find-links), else from PyTorch's index of CPU builds.
install_torch() {
    [ -x build/tools/bin/pip ] || "$python" -m venv build/tools
    set -- --no-compile --require-hashes --requirement .ci/torch-cpu.txt
    if [ "$(uname)" = Darwin ]; then
        pip_install "$@"
    else
        pip_install "$@" --no-index 2>/dev/null || pip_install "$@" --index-url $torch_index
    fi
}

# torch is no part of either list: PyPI's build for Linux is the CUDA one.
install_locked() {
    "$uv" venv --quiet --allow-existing --no-project --python "$python" "$venv"
    for extra in $extras; do set -- "$@" --extra "$extra"; done
    UV_PROJECT_ENVIRONMENT=$venv "$uv" sync --quiet --frozen --no-install-package torch "$@"
    install_torch
}

install_by_pip() {
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    pip_install --require-hashes --requirement .ci/requirements.txt
    pip_install --no-build-isolation --editable .
    install_torch
}

# torch comes first, so that the resolver takes it as it is.
install_latest() {
    rm -rf "$venv"
    "$uv" venv --quiet --no-project --python "$python" "$venv"
    install_torch
    "$uv" pip install --quiet --python "$venv/bin/python" --refresh --group dev \
        --editable ".[$(echo "$extras" | tr ' ' ,)]"
}

# Its build takes 14 s of processor time. Without a compiler its tests are skipped, and the others run.
install_kernels() {
    compiler=${CXX:-c++}
    if ! command -v "${compiler%% *}" >/dev/null; then
        echo "no C++ compiler ($compiler): specc-kernels is not built, and its tests are skipped; install g++" >&2
        return
    fi
    [ -x build/tools/bin/pip ] || "$python" -m venv build/tools
    PATH=$(cd "$venv/bin" && pwd):$PATH pip_install --no-index --no-build-isolation --force-reinstall \
        --config-settings "build-dir=$PWD/build/kernels" ./kernels
}

if [ "${1-}" = --kernels ]; then
    install_kernels
elif uv=$(.ci/uv.sh); then
    case ${1-} in
    "") install_locked ;;
    --group) install_locked --inexact --group "$2" ;;
    --latest) install_latest ;;
    *) echo "$1: give --group NAME, --latest or --kernels, or none of them" >&2; exit 2 ;;
    esac
elif [ $# = 0 ]; then
    echo "uv could not be installed; pip installs .ci/requirements.txt" >&2
    install_by_pip
else
    echo "$*: this needs uv, which could not be installed" >&2
    exit 1
fi
