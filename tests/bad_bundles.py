"""Bundles that no runtime must use, by the kind of their fault."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shell import edit_golden, edit_manifest

Damage = Callable[[Path], Any]


def cut(bundle: Path) -> None:
    """Cut the weights in half."""
    file = bundle / "weights.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def altered(bundle: Path) -> None:
    """Change one bit of an engine."""
    content = bytearray((bundle / "decode.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "decode.onnx").write_bytes(content)


def of_an_operator_that_nobody_has(bundle: Path) -> None:
    """Let the engines ask for an operator that no runtime has, in the file and in the manifest's words."""
    names = ("prefill.onnx", "decode.onnx")
    for name in names:
        file = bundle / name
        file.write_bytes(file.read_bytes().replace(b"GroupQueryAttention", b"GroupQueryAttentiom"))
    digests = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in names}
    edit_manifest(bundle, lambda m: [m["files"][name].update(sha256=digest) for name, digest in digests.items()])


def of_a_cut_engine(bundle: Path) -> None:
    """Cut the engines in half, and name the halves in the manifest."""
    for name in ("prefill.onnx", "decode.onnx"):
        content = (bundle / name).read_bytes()
        half = content[: len(content) // 2]
        (bundle / name).write_bytes(half)
        message = {"bytes": len(half), "sha256": hashlib.sha256(half).hexdigest()}
        edit_manifest(bundle, lambda m, n=name, f=message: m["files"].update({n: f}))  # type: ignore[misc]


def of_cut_weights(bundle: Path) -> None:
    """Cut the weights behind their header, and name what is left in the manifest: tensors end behind the file's end."""
    file = bundle / "weights.safetensors"
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(half)
    digest = hashlib.sha256(half).hexdigest()
    edit_manifest(bundle, lambda m: m["files"][file.name].update(bytes=len(half), sha256=digest))


def with_a_pipe(bundle: Path) -> None:
    """Put a pipe, which a reader waits for, in the place of a file."""
    (bundle / "weights.safetensors").unlink()
    os.mkfifo(bundle / "weights.safetensors")


def of_a_newer_schema(bundle: Path) -> None:
    """Raise the schema."""
    edit_manifest(bundle, lambda m: m.update(schema=99))


def of_a_schema_that_is_no_number(bundle: Path) -> None:
    """Write the schema as text."""
    edit_manifest(bundle, lambda m: m.update(schema="3"))


def of_a_wide_tolerance(bundle: Path) -> None:
    """Call every difference a near-tie."""
    edit_manifest(bundle, lambda m: m.update(near_tie_tolerance=float("inf")))


def without_golden_cases(bundle: Path) -> None:
    """Empty the golden file."""
    edit_golden(bundle, lambda cases: cases.clear())


def of_shortened_golden_cases(bundle: Path) -> None:
    """Leave a golden file that compares nothing."""
    edit_golden(bundle, lambda cases: [case.update(token_ids=[], gaps=[]) for case in cases])


def of_shortened_gaps(bundle: Path) -> None:
    """Leave a golden file whose gaps say nothing of its last tokens."""
    edit_golden(bundle, lambda cases: [case.update(gaps=case["gaps"][:1]) for case in cases])


def of_gaps_of_zero(bundle: Path) -> None:
    """Call every difference in one case a near-tie."""
    edit_golden(bundle, lambda cases: cases[1].update(gaps=[0] * len(cases[1]["gaps"])))


def of_gaps_that_no_logits_have(bundle: Path) -> None:
    """Call every difference in one case a near-tie, by numbers that float32 has not."""
    edit_golden(bundle, lambda cases: cases[1].update(gaps=[1e-300] * len(cases[1]["gaps"])))


def of_gaps_below_zero(bundle: Path) -> None:
    """Call a difference a near-tie, by a distance that is none."""
    edit_golden(bundle, lambda cases: cases[0]["gaps"].__setitem__(3, -0.5))


def of_gaps_that_are_no_number(bundle: Path) -> None:
    """Leave a golden file with a gap that cannot be compared."""
    edit_golden(bundle, lambda cases: cases[0]["gaps"].__setitem__(3, float("nan")))


def of_gaps_that_are_true(bundle: Path) -> None:
    """Leave a golden file with a gap of another type."""
    edit_golden(bundle, lambda cases: cases[0]["gaps"].__setitem__(3, True))


def of_tokens_that_are_not_whole(bundle: Path) -> None:
    """Leave a golden file with a token between two others."""
    edit_golden(bundle, lambda cases: cases[0]["token_ids"].__setitem__(3, cases[0]["token_ids"][3] + 0.5))


def of_a_case_that_is_none(bundle: Path) -> None:
    """Leave a golden file with an object of JSON that is no case."""
    edit_golden(bundle, lambda cases: cases.append({}))


def with_a_golden_case_twice(bundle: Path) -> None:
    """Fill the golden file with a copy, which counts and proves nothing. Its text differs, its tokens do not."""
    edit_golden(bundle, lambda cases: cases.append(cases[0] | {"prompt": "another text"}))


def with_a_golden_file_of_text(bundle: Path) -> None:
    """Take a file of text in place of the golden one, and name it in the manifest."""
    content = b"not a golden case\n"
    (bundle / "golden.jsonl").write_bytes(content)
    of_file = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_manifest(bundle, lambda m: m["files"].update({"golden.jsonl": of_file}))


def with_a_golden_file_that_is_not_listed(bundle: Path) -> None:
    """Leave a golden file of which the manifest says nothing, so that anybody may have written it."""
    edit_manifest(bundle, lambda m: m["files"].pop("golden.jsonl"))


def with_the_golden_cases_of_another_model(bundle: Path) -> None:
    """Take golden cases with tokens that the model does not have."""
    edit_golden(bundle, lambda cases: cases[-1]["token_ids"].__setitem__(-1, 1 << 20))


def with_another_golden_file(bundle: Path) -> None:
    """Take a golden file that is not the one of the manifest."""
    (bundle / "golden.jsonl").write_text((bundle / "golden.jsonl").read_text().replace("1", "2"))


# What a person can do, at the end of a line that refuses a bundle.
REMEDY = re.compile(r"[;:] (compile|copy|free|install|make|name|set|take|upgrade|use) ")
# How to damage a copy of a bundle, and what the line that refuses it names.
KINDS: dict[str, tuple[Damage, str]] = {
    "cut": (cut, "weights.safetensors was changed"),
    "altered": (altered, "decode.onnx was changed"),
    "missing operator": (of_an_operator_that_nobody_has, "GroupQueryAttentiom"),
    "cut engine": (of_a_cut_engine, ".onnx"),
    "cut weights": (of_cut_weights, "weight"),
    "pipe": (with_a_pipe, "weights.safetensors"),
    "newer schema": (of_a_newer_schema, "schema"),
    "schema that is no number": (of_a_schema_that_is_no_number, "schema"),
    "infinite tolerance": (of_a_wide_tolerance, ""),
    "no golden cases": (without_golden_cases, "golden.jsonl"),
    "shortened golden cases": (of_shortened_golden_cases, "golden.jsonl"),
    "shortened gaps": (of_shortened_gaps, "golden.jsonl"),
    "gaps of zero": (of_gaps_of_zero, "golden.jsonl"),
    "gaps that no logits have": (of_gaps_that_no_logits_have, "golden.jsonl"),
    "gaps below zero": (of_gaps_below_zero, "golden.jsonl"),
    "gaps that are no number": (of_gaps_that_are_no_number, "golden.jsonl"),
    "gaps that are true": (of_gaps_that_are_true, "golden.jsonl"),
    "tokens that are not whole": (of_tokens_that_are_not_whole, "golden.jsonl"),
    "a case that is none": (of_a_case_that_is_none, "golden.jsonl"),
    "a golden case twice": (with_a_golden_case_twice, "golden.jsonl"),
    "a golden file of text": (with_a_golden_file_of_text, "golden.jsonl"),
    "a golden file that is not listed": (with_a_golden_file_that_is_not_listed, "golden.jsonl"),
    "golden cases of another model": (with_the_golden_cases_of_another_model, "golden.jsonl"),
    "another golden file": (with_another_golden_file, "golden.jsonl was changed"),
    "no bundle": (shutil.rmtree, "manifest.json"),
}
