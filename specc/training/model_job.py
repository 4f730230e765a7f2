"""Train a model itself for a recipe: answers, updates, measure, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specc import machine
from specc.huggingface import load_tokenizer
from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.device import gpu_name, load_here
from specc.training.distil import Text, write
from specc.training.draft_job import texts_of
from specc.training.finite import check_weights
from specc.training.job import CHECKPOINT, Options, ends_of, same_random_numbers
from specc.training.model_card import ModelCard
from specc.training.model_folder import save_model
from specc.training.model_kinds import MODEL_KINDS
from specc.training.model_training import ModelTraining
from specc.training.positions import within_positions
from specc.training.text_trainer import TextTrainer
from specc.training.trainer import TrainerOptions

SHARE = 0.25  # of the learning rate, which is that of new weights


def train_model(options: Options) -> ModelCard:
    """Train a model for a recipe and write its directory. A run that was interrupted goes on where it stopped.

    Raises:
        HeadError: the output exists, the model is of a kind that cannot be trained so, or the loss is not a number.
        CaptureError: the model does not load.
        PromptError: a file of prompts is malformed.
    """
    options = within_positions(options)
    options.begin()
    options.stage("load the model", 0, 1)
    model, tokenizer = load_here(options.model), load_tokenizer(options.model)
    options = within_positions(options, model)
    text = dataclasses.replace(options.recording, temperature=0.0)  # The model shall keep its greedy tokens.
    options = dataclasses.replace(options, recording=text)
    processes.use_threads()
    with same_random_numbers(options.trainer.seed):
        options.stage("answer the prompts", 0, 1)
        held_out, _, answers = texts_of(options, model, tokenizer)
        greedy = write(model, held_out, text.answer_tokens, ends_of(model), 0.0, text.seed)
        if not answers or not greedy:
            raise HeadError("the model's answers are empty; give other prompts")
        training = MODEL_KINDS[options.recipe](model, options, answers)
        before = training.rates(greedy)
        settings = {
            "recipe": options.recipe,
            "texts": [len(answers), sum(map(len, answers))],
            "trainer": {"learning_rate": options.trainer.learning_rate, "seed": options.trainer.seed},
        }
        trainer = ModelTrainer(model, training, answers, options.trainer, options.work / CHECKPOINT, settings)

        def show(part: float, loss: float) -> None:
            options.stage(f"train the model · loss {loss:.3f}", int(1000 * part), 1000)

        progress = trainer.train(show)
        check_weights(training.modules, "the model", "train again with a lower --learning-rate")
        options.stage("measure the model", 0, 1)
        rates = training.rates(greedy)
        training.finish()
        card = ModelCard(
            recipe=options.recipe,
            model=options.model,
            has_head=training.head is not None,
            command=options.command,
            data=tuple(file.name for file in options.data),
            parameters=sum(one.numel() for one in training.modules.parameters() if one.requires_grad),
            minutes=round(progress.seconds / 60, 2),
            updates=progress.updates,
            trained_tokens=progress.tokens,
            losses=tuple(progress.losses[max(progress.losses, key=int)]) if progress.losses else (),
            depths_title=training.depths_title,
            rates_before=before,
            rates=rates,
            same=round(same_tokens(model, greedy), 4),
            machine=machine.describe(gpu_name()),
            seed=options.trainer.seed,
            torch=torch.__version__,
        )
    options.write(lambda: save_model(model, tokenizer, options.output, card.texts(options.output.name), training.head))
    return card


class ModelTrainer(TextTrainer[Text]):
    """The loop that trains a model on its answers.

    Args:
        model: the model.
        training: how it is trained.
        answers: the texts.
        options: of the loop.
        checkpoint: the file of the state.
        settings: what a training that resumes must have in common with this one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: ModelTraining,
        answers: Sequence[Text],
        options: TrainerOptions,
        checkpoint: Path,
        settings: Mapping[str, Any],
    ) -> None:
        rates = {name: SHARE * factor for name, factor in {**training.rates_by_name, "": 1.0}.items()}
        super().__init__(training.modules, options, checkpoint, dict(settings), rates)
        self.model, self.training, self.answers = model, training, training.mark(answers)

    def texts(self, number: int) -> Sequence[Text]:
        """Return all answers."""
        return self.answers

    def mode(self, is_training: bool) -> None:
        """See `TextTrainer`."""
        self.model.train(is_training)

    def loss(self, group: Sequence[Text]) -> Tensor:
        """Return the loss of a batch of answers."""
        return self.training.loss(group, self.options.seed * 1_000_003 + self.progress.updates)


@torch.no_grad()
def same_tokens(model: PreTrainedModel, texts: Sequence[Text]) -> float:
    """Return how often a model's likeliest token is that of an answer, given the text before."""
    right = tried = 0
    for text in texts:
        rows = model(input_ids=text.tokens[None, :-1], use_cache=False).logits[0, text.prompt - 1 :]
        right += int((rows.argmax(-1) == text.tokens[text.prompt :]).sum())
        tried += len(rows)
    return right / max(1, tried)
