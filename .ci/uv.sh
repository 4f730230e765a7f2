#!/bin/sh
# Print where uv is, after pip has installed it into build/tools if need be. The variable UV names another one to take.
set -eu
cd "$(dirname "$0")/.."

version=0.13.9
tools=build/tools
if [ -z "${UV-}" ]; then
    UV=$tools/bin/uv
    [ -x $tools/bin/pip ] || "${PYTHON:-python3.11}" -m venv $tools
    [ "$($UV --version 2>/dev/null | cut -d' ' -f2)" = $version ] ||
        $tools/bin/pip install -qq --disable-pip-version-check --retries 1 --timeout 20 uv==$version
fi
echo "$UV"
