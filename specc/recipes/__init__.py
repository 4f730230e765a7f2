"""The table of methods: what each one compiles, how it drafts, and which parameters it has. No torch.

An entry is a plan, which turns parameters into blocks, and the `Method` right below it; a file holds a family of them.
To add a method, write its entry and add it to `METHODS`. If its tokens come from somewhere new, write a drafter in
runtime/drafters/.
"""

from __future__ import annotations

import os
from pathlib import Path

from specc.recipes.blocks import DECODE, committing, prefill
from specc.recipes.chimera import CHIMERA
from specc.recipes.corpus import RASD, RASD_EAGLE2, SUPERPOSED
from specc.recipes.cross_heads import GLIDE, GLIDE_CAPE, MIXTURE_OF_ATTENTIONS
from specc.recipes.dflash import DFLASH
from specc.recipes.draft_model import (
    BILD,
    CONTRASTIVE,
    COPYSPEC_DRAFT,
    DRAFT_MODEL,
    EASYSPEC,
    ENTROPY_ADAPTIVE,
    PEARL,
    S2D,
    SPECDEC,
)
from specc.recipes.draft_trees import CAPE, DYNAMIC_DEPTH, DYSPEC, DYSPEC_THRESHOLD, SEQUOIA, STAGED_TREE
from specc.recipes.entry import Facts, Family, HeadFacts, LayerSearch, Method, MethodBlocks, Parameter, Values
from specc.recipes.exits import KANGAROO, LAYERSKIP, M2R2
from specc.recipes.falcon import FALCON
from specc.recipes.guess_slots import (
    HIDDEN_TRANSFER,
    LEXICAL_UNITS,
    LEXICAL_UNITS_UNVERIFIED,
    PPD,
    SPECULATIVE_STREAMING,
)
from specc.recipes.guesses import (
    FASTCOT,
    GAUSS_SEIDEL_JACOBI,
    HYBRID_JACOBI,
    JACOBI,
    LOOKAHEAD,
    SPECULATIVE_JACOBI,
    TR_JACOBI,
)
from specc.recipes.head_lookup import EAGLE3_CASCADE, EAGLE3_LOOKUP
from specc.recipes.heads import (
    ADAEAGLE,
    EAGLE,
    EAGLE2,
    EAGLE3,
    EAGLE3_TREE,
    FSPAD,
    MTP,
    PEAGLE,
    TANDEM,
)
from specc.recipes.jakiro import JAKIRO
from specc.recipes.judge import JUDGE
from specc.recipes.lookup import AGGRESSIVE_DECODING, COPYSPEC, PROMPT_LOOKUP, RECYCLED_LOOKUP
from specc.recipes.recipe_file import SUFFIX, read_recipe
from specc.recipes.recursive import RELAXED_RECURSIVE, RELAXED_RECURSIVE_DEPTHS
from specc.recipes.routing import FS_GEN, FS_GEN_CONTRASTIVE, FS_GEN_PROXY
from specc.recipes.s3d import S3D
from specc.recipes.sampled_trees import RSD_C, RSD_S, SPECTR
from specc.recipes.self_draft import (
    CASCADE,
    DRAFT_AND_VERIFY,
    LAYER_SKIP,
    QUANTIZED_SELF_DRAFT,
    QUANTSPEC,
    QUANTSPEC_INT8,
    RAPID,
    SHORT_CONTEXT,
    STAGED,
)
from specc.recipes.sequential_heads import CLOVER, CLOVER_2, HYDRA, HYDRA_PLUS_PLUS, RECURRENT_DRAFTER
from specc.recipes.specdec_plus_plus import SPECDEC_PLUS_PLUS
from specc.recipes.stacked_heads import AMPHISTA, BLOCKWISE, MEDUSA
from specc.recipes.swift import SWIFT
from specc.recipes.trees import ADAPTIX, DYNAMIC_TREE, EARLY_EXIT, TOKEN_RECYCLING
from specc.runtime.errors import RecipeError, nearest, printable

__all__ = [
    "DECODE",
    "METHODS",
    "Facts",
    "HeadFacts",
    "LayerSearch",
    "Method",
    "MethodBlocks",
    "Parameter",
    "committing",
    "method",
    "prefill",
]


def table(*methods: Method) -> dict[str, Method]:
    """Return the methods by name. Raises ValueError if two have one name."""
    by_name = {m.name: m for m in methods}
    if len(by_name) < len(methods):
        raise ValueError(f"two methods have one name among {', '.join(m.name for m in methods)}")
    return by_name


def _plan_plain(values: Values, facts: Facts) -> MethodBlocks:
    return MethodBlocks((DECODE,))


PLAIN = Method(
    name="plain",
    title="Plain decoding",
    try_when="No other recipe is faster. The others are compared with it.",
    about=(
        "It decodes one token a step. There is no draft, so nothing is verified. The engine runs one slot. It is the "
        "measure of every other recipe. The compiler always includes it."
    ),
    family=Family.NONE,
    drafter="plain",
    topology="none",
    length="none",
    schedule="plain",
    plan=_plan_plain,
)


METHODS = table(
    PLAIN,
    QUANTIZED_SELF_DRAFT,
    LAYER_SKIP,
    EARLY_EXIT,
    PROMPT_LOOKUP,
    RECYCLED_LOOKUP,
    COPYSPEC,
    AGGRESSIVE_DECODING,
    CASCADE,
    STAGED,
    DRAFT_MODEL,
    TOKEN_RECYCLING,
    JACOBI,
    GAUSS_SEIDEL_JACOBI,
    HYBRID_JACOBI,
    SPECULATIVE_JACOBI,
    FASTCOT,
    LOOKAHEAD,
    DYNAMIC_TREE,
    ADAPTIX,
    CONTRASTIVE,
    SPECDEC_PLUS_PLUS,
    SPECDEC,
    JUDGE,
    BILD,
    ENTROPY_ADAPTIVE,
    SPECTR,
    RSD_C,
    RSD_S,
    SEQUOIA,
    DYSPEC,
    DYSPEC_THRESHOLD,
    DYNAMIC_DEPTH,
    STAGED_TREE,
    CAPE,
    PEARL,
    COPYSPEC_DRAFT,
    S2D,
    RELAXED_RECURSIVE,
    RELAXED_RECURSIVE_DEPTHS,
    EASYSPEC,
    FS_GEN,
    FS_GEN_CONTRASTIVE,
    FS_GEN_PROXY,
    DRAFT_AND_VERIFY,
    SWIFT,
    LAYERSKIP,
    KANGAROO,
    QUANTSPEC,
    QUANTSPEC_INT8,
    SHORT_CONTEXT,
    RAPID,
    TR_JACOBI,
    RASD,
    RASD_EAGLE2,
    SUPERPOSED,
    EAGLE3,
    EAGLE3_TREE,
    EAGLE3_LOOKUP,
    EAGLE3_CASCADE,
    MEDUSA,
    BLOCKWISE,
    EAGLE,
    EAGLE2,
    MTP,
    PEAGLE,
    DFLASH,
    ADAEAGLE,
    FSPAD,
    FALCON,
    JAKIRO,
    TANDEM,
    HYDRA,
    HYDRA_PLUS_PLUS,
    RECURRENT_DRAFTER,
    CLOVER,
    CLOVER_2,
    AMPHISTA,
    CHIMERA,
    PPD,
    HIDDEN_TRANSFER,
    SPECULATIVE_STREAMING,
    LEXICAL_UNITS,
    LEXICAL_UNITS_UNVERIFIED,
    S3D,
    M2R2,
    MIXTURE_OF_ATTENTIONS,
    GLIDE,
    GLIDE_CAPE,
)


def method(name: str) -> Method:
    """Return a method of the table by its name, or the one that a recipe file describes.

    Raises:
        RecipeError: there is no such method; the message names the nearest. Or the file is wrong.
    """
    if name.lower().endswith(SUFFIX):
        return read_recipe(Path(name), METHODS)
    if name not in METHODS and os.path.isfile(name):  # Of a name that no file can have, it is false.
        raise RecipeError(f"{name} is a file; a recipe file has a name that ends with {SUFFIX}: rename it")
    if name not in METHODS and os.path.isdir(name):
        raise RecipeError(f"{printable(name)} is a folder; name a recipe of the table, or a recipe file in it")
    if name not in METHODS:
        raise RecipeError(f"no recipe {name!r}; {nearest(name, METHODS, 'specc recipes lists them')}")
    return METHODS[name]
