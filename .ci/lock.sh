#!/bin/sh
# Resolve uv.lock anew, against PyPI whatever the machine's settings, and export what pip installs without uv.
#
#   .ci/lock.sh [--upgrade]    write uv.lock and .ci/requirements.txt; --upgrade takes newer releases within the ranges
#   .ci/lock.sh --check        fail if either is not what pyproject.toml asks for
set -eu
cd "$(dirname "$0")/.."

uv=$(.ci/uv.sh)
unset UV_FIND_LINKS UV_INDEX UV_EXTRA_INDEX_URL UV_INDEX_URL
export UV_DEFAULT_INDEX=https://pypi.org/simple

export_lock() {
    "$uv" export --quiet --frozen --no-header --no-annotate --no-emit-project --no-emit-package torch \
        --extra bench --extra compile --extra cpu
}

"$uv" lock --quiet --python "${PYTHON:-python3.11}" "$@"
if [ "${1-}" = --check ]; then
    export_lock | diff --brief - .ci/requirements.txt >&2 || { echo "run make lock" >&2; exit 1; }
else
    export_lock >.ci/requirements.txt
fi
