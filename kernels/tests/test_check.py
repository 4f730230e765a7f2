"""The variants without ONNX Runtime: under the thread sanitizer, and on processors that are emulated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
KERNELS = Path(__file__).parents[1]
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++")
ARM_QEMU = ("qemu-aarch64-static", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")


def built(folder: Path, *options: str) -> Path:
    """Build the program that compares each variant with the reference."""
    subprocess.run(["cmake", "-S", KERNELS, "-B", folder, "-DSPECC_CHECK=ON", *options], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "--target", "specc_kernels_check"], check=True)
    return folder / "specc_kernels_check"


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


@pytest.mark.parametrize(("processor", "variants"), [("Haswell", " avx2"), ("Nehalem", " no other variant")])
def test_a_processor_without_avx512_runs_what_it_has(processor: str, variants: str, tmp_path: Path) -> None:
    need("cmake", "c++", "qemu-x86_64-static")
    line = checked("qemu-x86_64-static", "-cpu", processor, built(tmp_path), "3")
    assert line.strip().endswith(f"equal to the reference:{variants}")


def test_neon_has_the_bits_of_the_reference(tmp_path: Path) -> None:
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64-static")
    assert checked(*ARM_QEMU, built(tmp_path, *ARM), "3").strip().endswith("equal to the reference: neon")
