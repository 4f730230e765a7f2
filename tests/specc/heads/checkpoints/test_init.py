"""Formats are recognised, and what is no head is refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_heads import CONFIG, MODEL, SIZE, VOCABULARY, layer, random, tables, write

from specc.heads import Head, build_head, open_head, save_head
from specc.heads.checkpoints import read_checkpoint
from specc.heads.head import HeadConfig
from specc.runtime.errors import HeadError, SpeccWarning

pytestmark = pytest.mark.torch


def eagle(directory: Path, embedding: torch.Tensor) -> Path:
    weights = {"embed_tokens.weight": embedding, "fc.weight": random(SIZE, 2 * SIZE, seed=1)}
    return write(directory, weights | layer("layers.0.", input_norm=False), CONFIG)


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, {"gru.weight": torch.zeros(2)}, CONFIG)
    names = (
        "speculators' eagle, speculators' eagle3, speculators' peagle, speculators' dflash, DFlash, EAGLE and EAGLE-2, "
        "EAGLE-3, Medusa, MTP"
    )
    with pytest.raises(HeadError, match=f"unknown format; specc reads its own and {names}"):
        open_head(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "medusa_lm_head.pt"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HeadError, match=rf"as a pickle \({name}\), .*write its tensors with safetensors.torch.save"):
        open_head(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HeadError, match=r"no file that ends in \.safetensors; .*safetensors\.torch\.save_file first"):
        open_head(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    (eagle(tmp_path, tables()[0]) / "config.json").write_text(text)
    with pytest.raises(HeadError, match=r"config\.json (cannot be read|is no JSON object)"):
        open_head(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (eagle(tmp_path, tables()[0]) / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(HeadError, match=r"model\.safetensors cannot be read: .*download it again"):
        open_head(tmp_path)


def test_a_head_of_specc_is_loaded_as_before(tmp_path: Path) -> None:
    settings = {"heads": 2.0, "eps": 1e-6}
    config = HeadConfig(architecture="medusa", target=MODEL, taps=(-1,), draft_vocab_size=VOCABULARY, settings=settings)
    save_head(build_head(config), tmp_path / "h", {})
    head = open_head(tmp_path / "h")
    assert isinstance(head, Head) and head.config == config


def test_embeddings_that_are_not_the_models_are_a_warning(tmp_path: Path) -> None:
    embedding = tables()[0]
    read_checkpoint(eagle(tmp_path / "same", embedding.bfloat16())).head(MODEL, embedding)
    with pytest.warns(SpeccWarning, match="brings embeddings that are not the model's, and the model's are used"):
        read_checkpoint(eagle(tmp_path / "other", -embedding)).head(MODEL, embedding)
