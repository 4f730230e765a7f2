"""The table of what can be trained: a recipe's name, and how its head is trained."""

from __future__ import annotations

from collections.abc import Mapping

from specc.runtime.errors import HeadError
from specc.training import (
    adaeagle,
    amphista,
    blockwise,
    chimera,
    clover,
    dflash,
    eagle,
    eagle3,
    falcon,
    fspad,
    glide,
    guess_slots,
    hydra,
    jakiro,
    kangaroo,
    m2r2,
    medusa,
    mixture_of_attentions,
    peagle,
    recurrent_drafter,
    s3d,
    tandem,
)
from specc.training.course import Course

COURSES: Mapping[str, Course] = {
    "eagle3": eagle3.COURSE,
    "medusa": medusa.COURSE,
    "blockwise": blockwise.COURSE,
    "eagle": eagle.EAGLE,
    "mtp": eagle.MTP,
    "peagle": peagle.COURSE,
    "dflash": dflash.COURSE,
    "adaeagle": adaeagle.COURSE,
    "fspad": fspad.COURSE,
    "falcon": falcon.COURSE,
    "jakiro": jakiro.COURSE,
    "hydra": hydra.COURSE,
    "hydra-plus-plus": hydra.PLUS_PLUS,
    "recurrent-drafter": recurrent_drafter.COURSE,
    "clover": clover.COURSE,
    "clover-2": clover.CLOVER_2,
    "amphista": amphista.COURSE,
    "chimera": chimera.COURSE,
    "kangaroo": kangaroo.COURSE,
    "ppd": guess_slots.PPD,
    "hidden-transfer": guess_slots.HIDDEN_TRANSFER,
    "lexical-units": guess_slots.LEXICAL_UNITS,
    "s3d": s3d.COURSE,
    "speculative-streaming": guess_slots.SPECULATIVE_STREAMING,
    "tandem": tandem.COURSE,
    "m2r2": m2r2.COURSE,
    "mixture-of-attentions": mixture_of_attentions.COURSE,
    "glide": glide.COURSE,
}


def course_of(recipe: str) -> Course:
    """Return how the head of a recipe is trained.

    Raises:
        HeadError: the recipe has no head that can be trained.
    """
    if recipe not in COURSES:
        raise HeadError(f"there is no training for the recipe {recipe!r}; there is one for {', '.join(COURSES)}")
    return COURSES[recipe]
