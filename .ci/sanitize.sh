#!/bin/sh
# Run the parity tests of specc-kernels under the address sanitizer and the undefined-behaviour sanitizer.
#
#   .ci/sanitize.sh VENV    after .ci/install.sh VENV --kernels
#
# First every variant against the reference without ONNX Runtime, then the operators in sessions of ONNX Runtime, whose
# own code is not checked. Scalar code and AVX2 are left out there where a faster variant runs: they share the code, and
# take long.
set -eu
cd "$(dirname "$0")/.."

venv=$(cd "$1" && pwd)
build=$PWD/build/sanitize
compiler=${CXX:-c++}
if ! command -v "${compiler%% *}" >/dev/null; then
    echo "no C++ compiler ($compiler): nothing is run under sanitizers; install g++" >&2
    exit 0
fi
export PATH="$venv/bin:$PATH" UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
unset MAKEFLAGS  # Ninja cannot use the job server of make, and would print an error.
cmake -S kernels -B "$build" -G Ninja -DSPECC_CHECK=ON -DSPECC_SANITIZE=address,undefined >/dev/null
cmake --build "$build" >/dev/null
"$build/specc_kernels_check" 10

fast=$("$venv/bin/python" -c "from specc_kernels import variants; print(' or '.join(variants()[2:] or variants()[-1:]))")

# Python is not built with the sanitizers, so they are loaded before it. It leaks by design.
sanitizers=$($compiler -print-file-name=libasan.so):$($compiler -print-file-name=libubsan.so)
LD_PRELOAD=$sanitizers ASAN_OPTIONS=detect_leaks=0 SPECC_KERNELS_LIBRARY=$build/specc_kernels.so \
    "$venv/bin/python" -m pytest kernels/tests -k "bits_of_the_reference and ($fast)"
