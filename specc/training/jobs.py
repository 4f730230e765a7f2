"""The table of trainings: a recipe's name, and what trains its head, its draft model or the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specc.runtime.errors import HeadError
from specc.training.card import Card
from specc.training.courses import COURSES
from specc.training.draft_card import DraftCard
from specc.training.draft_job import train_draft
from specc.training.draft_kinds import KINDS
from specc.training.job import Options, train
from specc.training.judge_job import JudgeCard, train_judge
from specc.training.model_card import ModelCard
from specc.training.model_job import train_model
from specc.training.model_kinds import MODEL_KINDS
from specc.training.specdec_plus_plus_job import AcceptanceCard, train_acceptance

Training = Callable[[Options], Card | DraftCard | JudgeCard | AcceptanceCard | ModelCard]
TRAININGS: Mapping[str, Training] = {
    **dict.fromkeys(COURSES, train),
    **dict.fromkeys(KINDS, train_draft),
    **dict.fromkeys(MODEL_KINDS.keys() - COURSES.keys(), train_model),  # Others train a head, unless the user says so.
    "judge-decoding": train_judge,
    "specdec-plus-plus": train_acceptance,
}


def training_of(recipe: str, with_model: bool = False) -> Training:
    """Return what trains the head or the draft model of a recipe, or the model itself.

    Args:
        recipe: the recipe.
        with_model: whether the model itself is trained, too.

    Raises:
        HeadError: nothing does.
    """
    if recipe not in TRAININGS:
        raise HeadError(f"there is no training for the recipe {recipe!r}; there is one for {', '.join(TRAININGS)}")
    if with_model and recipe not in MODEL_KINDS:
        raise HeadError(
            f"the training of {recipe} leaves the model as it is; leave out --with-model, or give one of the recipes "
            f"{', '.join(MODEL_KINDS)}"
        )
    return train_model if with_model else TRAININGS[recipe]
