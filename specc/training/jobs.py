"""The table of trainings: a recipe's name, and what trains its head or its draft model."""

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
from specc.training.specdec_plus_plus_job import AcceptanceCard, train_acceptance

Training = Callable[[Options], Card | DraftCard | JudgeCard | AcceptanceCard]
TRAININGS: Mapping[str, Training] = {
    **dict.fromkeys(COURSES, train),
    **dict.fromkeys(KINDS, train_draft),
    "judge-decoding": train_judge,
    "specdec-plus-plus": train_acceptance,
}


def training_of(recipe: str) -> Training:
    """Return what trains the head or the draft model of a recipe.

    Raises:
        HeadError: nothing does.
    """
    if recipe not in TRAININGS:
        raise HeadError(f"there is no training for the recipe {recipe!r}; there is one for {', '.join(TRAININGS)}")
    return TRAININGS[recipe]
