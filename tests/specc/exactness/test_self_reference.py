"""A bundle with quantised weights is its own reference, and says how far it is from the original."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import specc

from specc.exactness import golden
from specc.exactness.self_reference import ORIGINAL
from specc.runtime.bundle import open_bundle

pytestmark = [pytest.mark.torch, pytest.mark.model]


@pytest.fixture(scope="module")
def small(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose engines read 4 bits a weight."""
    output = tmp_path_factory.mktemp("int4") / "small.specc"
    options = ["--dtype", "int4", "--golden-tokens", 6, "--recipe", "prompt-lookup", "--recipe", "early-exit"]
    assert specc("compile", model, "-o", output, *options).status == 0
    return output


def test_the_golden_tokens_are_those_of_its_plain_decoding(small: Path) -> None:
    own, original = golden.read_cases(small / golden.FILE), golden.read_cases(small / ORIGINAL)
    assert [(c.prompt, c.prompt_ids) for c in own] == [(c.prompt, c.prompt_ids) for c in original]
    assert all(len(c.gaps) == len(c.token_ids) > 0 for c in own)
    assert specc("test", small, "--json").json["diverged"] == 0


def test_the_agreement_with_the_original_is_the_share_of_next_tokens(small: Path) -> None:
    manifest = open_bundle(small).manifest
    agreement = manifest.extra["original"]
    assert specc("test", small, "--json").json["original"] == agreement
    original = golden.read_cases(small / ORIGINAL)
    assert agreement["tokens"] == sum(len(c.token_ids) for c in original)
    assert 0 <= agreement["agreement"] <= 1


def test_no_tolerance_is_wider_than_that_of_a_near_tie_and_the_target_was_measured(small: Path) -> None:
    manifest = open_bundle(small).manifest
    assert manifest.near_tie_tolerance == 1e-3
    measured = manifest.width_invariance
    assert measured is not None and measured.tokens > 0 and measured.slots_agree


def test_no_engine_reads_its_weights_in_full(small: Path) -> None:
    assert {e.block.weights for e in open_bundle(small).manifest.engines} == {"int4"}


def test_every_file_of_the_bundle_has_the_hash_that_the_manifest_says(small: Path) -> None:
    """The golden file is another than the one that was hashed first."""
    open_bundle(small).check()


def test_exact_decoding_of_narrow_weights_is_plain_decoding_token_for_token(small: Path) -> None:
    """Of each recipe that verifies chains. One that verifies trees is refused in one line."""
    report = specc("test", small, "--exact", "--json").json
    assert [row["recipe"] for row in report["recipes"]] == ["prompt-lookup"]
    assert report["identical"] == report["replays"] > 0
    assert report["recipes"][0]["plain_tokens_per_second"] > 0
    refused = specc("test", small, "--exact", "--recipe", "early-exit")
    assert refused.status == 2 and "verifies trees, so it has no exact width; choose from: prompt-lookup" in refused.err
    options = ["--prompt", "def f(", "--max-new-tokens", 12, "--ignore-eos", "--json"]
    exact = specc("generate", small, "--exact", "--recipe", "prompt-lookup", *options).json
    plain = specc("generate", small, "--exact", "--recipe", "prompt-lookup", "--no-speculation", *options).json
    assert exact["token_ids"] == plain["token_ids"] and plain["num_drafts"] == 0
