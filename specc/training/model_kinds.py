"""The table of trainings that change the model itself: a recipe's name, and how its training begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedModel

from specc.heads import build_head
from specc.heads.guess_slots import SlotHead
from specc.training.beginning import config_of
from specc.training.courses import course_of
from specc.training.distil import Text
from specc.training.job import Options
from specc.training.model_training import ModelTraining
from specc.training.noise import NoiseTraining
from specc.training.slot_training import LexicalUnitTraining, SlotTraining, StreamTraining
from specc.training.teacher import teacher_of

Begin = Callable[[PreTrainedModel, Options, Sequence[Text]], ModelTraining]


def _begin_noise(model: PreTrainedModel, options: Options, texts: Sequence[Text]) -> ModelTraining:
    return NoiseTraining(model)


def _with_head(training: Callable[[PreTrainedModel, SlotHead], SlotTraining]) -> Begin:
    """Return what begins a training of a model together with the head of its recipe."""

    def begin(model: PreTrainedModel, options: Options, texts: Sequence[Text]) -> ModelTraining:
        course, teacher = course_of(options.recipe), teacher_of(model, options.output.name)
        head = build_head(config_of(course, teacher, teacher.target.vocab_size))
        assert isinstance(head, SlotHead)
        pair = training(model, head)
        pair.begin(texts)
        return pair

    return begin


MODEL_KINDS: Mapping[str, Begin] = {
    "tr-jacobi": _begin_noise,
    "lexical-units": _with_head(LexicalUnitTraining),
    "speculative-streaming": _with_head(StreamTraining),
}
