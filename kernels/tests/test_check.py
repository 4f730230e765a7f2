"""The variants without ONNX Runtime: under the thread sanitizer, and on processors that are emulated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
KERNELS = Path(__file__).parents[1]
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++")
ARM_QEMU = ("qemu-aarch64-static", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")


def built(folder: Path, *options: str, target: str = "specc_kernels_check") -> Path:
    """Build the library, or by default the program that compares each variant with the reference."""
    subprocess.run(["cmake", "-S", KERNELS, "-B", folder, "-DSPECC_CHECK=ON", *options], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "--target", target], check=True)
    return folder / target


def checked(*command: str | Path) -> str:
    """Run the program and return its line."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def need(*programs: str) -> None:
    """Skip the test if a program is missing."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing; apt install cmake g++ qemu-user-static g++-aarch64-linux-gnu")


def test_four_threads_at_once_race_for_nothing(tmp_path: Path) -> None:
    need("cmake", "c++")
    assert "equal to the reference" in checked(built(tmp_path, "-DSPECC_SANITIZE=thread"), "3", "4")


def racing_frames(report: str, library: Path) -> list[str]:
    """Return the innermost frame of each stack in a sanitizer's report, if it lies in the library.

    The sanitizer sees none of ONNX Runtime's atomics, so it reports memory that ONNX Runtime itself hands on. Nor does
    it see that the C library frees the memory of a thread after the thread has ended.
    """
    stacks = re.findall(r"(?:^ +#\d+ .*\n)+", report, re.MULTILINE)
    stacks = [stack for stack in stacks if "__call_tls_dtors" not in stack]
    frames = [[frame for frame in stack.splitlines() if "(libtsan" not in frame] for stack in stacks]
    return [stack[0] for stack in frames if stack and f"({library.name}+" in stack[0]]


def test_sessions_that_six_threads_run_at_once_race_for_nothing(tmp_path: Path) -> None:
    """Two sessions that share an output are the control: the sanitizer must report their race.

    operator.cpp tells the sanitizer in which order ONNX Runtime runs the parts of a product.
    """
    need("cmake", "c++")
    library = built(tmp_path, "-DSPECC_SANITIZE=thread", target="specc_kernels").with_suffix(".so")
    sanitizer = subprocess.run(["c++", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer.stdout.strip(),
        "TSAN_OPTIONS": "exitcode=0",
        "SPECC_KERNELS_LIBRARY": str(library),
        "OMP_NUM_THREADS": "1",
    }

    def report(*arguments: str) -> str:
        command = [sys.executable, str(KERNELS / "tests" / "concurrent_sessions.py"), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stderr

    assert not racing_frames(report(), library)
    assert racing_frames(report("shared"), library)


@pytest.mark.parametrize(("processor", "variants"), [("Haswell", " avx2"), ("Nehalem", " no other variant")])
def test_a_processor_without_avx512_runs_what_it_has(processor: str, variants: str, tmp_path: Path) -> None:
    need("cmake", "c++", "qemu-x86_64-static")
    line = checked("qemu-x86_64-static", "-cpu", processor, built(tmp_path), "3")
    assert line.strip().endswith(f"equal to the reference:{variants}")


def test_neon_has_the_bits_of_the_reference(tmp_path: Path) -> None:
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64-static")
    assert checked(*ARM_QEMU, built(tmp_path, *ARM), "3").strip().endswith("equal to the reference: neon")
