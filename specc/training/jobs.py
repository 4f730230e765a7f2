"""The table of trainings: a recipe's name, and what trains its head, its draft model or the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specc.recipes import METHODS
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
LOOP = frozenset({"minutes", "updates", "learning_rate"})
BATCHES = LOOP | {"batch_tokens", "accumulate"}
# What each training reads of the options of `specc train` that others do not, by the names of the verb's parameters.
READ: Mapping[Training, frozenset[str]] = {
    train: BATCHES | {"self_prompts", "recording_minutes", "draft_vocab_size", "head", "bits", "costs"},
    train_draft: BATCHES | {"assistant_model", "divergence", "own_text", "answers", "online", "costs"},
    train_model: BATCHES | {"answers"},
    train_judge: frozenset(),
    train_acceptance: LOOP | {"assistant_model"},
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
        raise HeadError(_why_not_trained(recipe))
    if with_model and recipe not in MODEL_KINDS:
        raise HeadError(
            f"the training of {recipe} leaves the model as it is; leave out --with-model, or give one of the recipes "
            f"{', '.join(MODEL_KINDS)}"
        )
    return train_model if with_model else TRAININGS[recipe]


def _why_not_trained(recipe: str) -> str:
    """Say why a recipe has no training of its own, and which one makes what it takes, if one does."""
    trained = f"there is a training for {', '.join(TRAININGS)}"
    method = METHODS.get(recipe)
    if method is None:
        return f"there is no recipe {recipe!r} that can be trained; {trained}"
    if method.trained_as:
        what = "head" if method.head else "draft model"
        return f"{recipe} takes the {what} that --recipe {method.trained_as} trains; give that recipe"
    if "assistant-model" in method.needs:
        return f"{recipe} takes any draft model; train one with --recipe {next(iter(KINDS))}"
    return f"{recipe} takes nothing that is trained; leave the training out, or choose another recipe: {trained}"


def options_read(recipe: str, with_model: bool = False) -> frozenset[str]:
    """Return those options of `specc train` that the training of a recipe reads and some other training does not.

    Args:
        recipe: the recipe.
        with_model: whether the model itself is trained, too.

    Raises:
        HeadError: nothing trains it.
    """
    training = training_of(recipe, with_model)
    names = READ[training]
    if training is train_draft:
        names |= KINDS[recipe].reads
    if training is train and COURSES[recipe].in_model is not None:
        names -= {"draft_vocab_size", "head"}  # Such a head knows all tokens, and is trained anew.
    return names


def recipes_reading(name: str) -> list[str]:
    """Return the recipes whose training reads an option of READ. None reads an option that every training reads."""
    return [recipe for recipe in TRAININGS if name in options_read(recipe)]
