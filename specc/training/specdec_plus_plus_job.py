"""Train a head that foresees whether drafted tokens are accepted: answers, drafts, states, fit, measure, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specc import machine
from specc.heads import HeadConfig, build_head, save_head
from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.huggingface import load_tokenizer
from specc.machine import Machine
from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.device import gpu_name, load_here
from specc.training.distil import Text, write
from specc.training.draft_kinds import load_draft
from specc.training.finite import check_weights
from specc.training.held_out import held_out_count
from specc.training.job import Options, ends_of, same_random_numbers
from specc.training.positions import within_positions
from specc.training.prompts import read_prompts
from specc.training.specdec_plus_plus import calibration_error, drafted, fit
from specc.training.teacher import teacher_of
from specc.training.training_card import TrainingCard

BLOCKS = 3  # of the head, as in the paper


@dataclass(frozen=True, kw_only=True)
class AcceptanceCard(TrainingCard):
    """The facts of a head that foresees whether drafted tokens are accepted.

    Attributes:
        recipe: how it was trained.
        model: the model that verifies.
        assistant_model: the draft model, whose states it reads.
        command: the command line.
        data: the files; empty for the prompts that ship with specc.
        parameters: numbers of the head.
        tokens: drafted tokens to train on.
        held_out: those that were measured.
        accepted: the share of them that the model wrote too.
        estimate: the mean of what the head foresees of them.
        calibration_error: how far its estimates are from what came true.
        own_calibration_error: how far the draft model's own probabilities are.
        minutes: of the updates.
        updates: of the weights.
        machine: where it was trained.
        seed: of everything random.
        torch: the version of torch.
    """

    kind: ClassVar[str] = "head"

    recipe: str
    model: str
    assistant_model: str
    command: str
    data: tuple[str, ...]
    parameters: int
    tokens: int
    held_out: int
    accepted: float
    estimate: float
    calibration_error: float
    own_calibration_error: float
    minutes: float
    updates: int
    machine: Machine
    seed: int
    torch: str

    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""
        return {
            "head": f"{output}, which reads states of {self.assistant_model} and ends its drafts",
            "text": f"{self.tokens:,} drafted tokens, {self.updates} updates in {self.minutes:.1f} minutes",
            "held out": f"{self.accepted:.1%} of {self.held_out:,} tokens were right, and {self.estimate:.1%} foreseen",
            "calibration": f"an error of {self.calibration_error:.3f}; the draft model's own probabilities have "
            f"{self.own_calibration_error:.3f}",
        }

    def next_command(self, output: str) -> str:
        """Return the command that compiles the head."""
        draft = f"--assistant-model {self.assistant_model}"
        return f"specc compile {self.model} {draft} --head {output} --recipe specdec-plus-plus -o model.specc"

    def readme(self, name: str) -> str:
        """Return the page of a head with this name."""
        about = f"A head for {self.assistant_model}, which drafts for {self.model}, trained by `specc train`."
        return self.page(name, about, f"prompts: {self.prompts()}")


def train_acceptance(options: Options) -> AcceptanceCard:
    """Fit a head that foresees whether drafted tokens are accepted, and write its directory.

    Raises:
        HeadError: the output exists, there is no draft model, or all of its tokens are right, or none.
        CaptureError: a model does not load.
        PromptError: a file is malformed.
    """
    processes.check_alone("the training of specdec-plus-plus")
    options = within_positions(options)
    options.places.check()
    if not options.draft.source:
        raise HeadError("the head reads states of a draft model; name it with --assistant-model")
    options.stage("load the models", 0, 1)
    model, tokenizer = load_here(options.model), load_tokenizer(options.model)
    draft = load_draft(options, model)
    options = within_positions(within_positions(options, model), draft, options.draft.source)
    text = options.recording
    teacher = teacher_of(draft, options.draft.source)
    processes.use_threads()
    with same_random_numbers(options.trainer.seed):
        prompts = read_prompts(options.data, tokenizer, count=text.prompts, longest=text.prompt_tokens, seed=text.seed)
        options.stage("answer the prompts", 0, 1)
        answers = write(model, prompts, text.answer_tokens, ends_of(model), 0.0, text.seed)
        count = held_out_count(text.held_out, len(answers))
        options.stage("read the draft model's states", 0, 1)
        states, accepted, _ = _drafted(draft, answers[count:])
        their_states, truth, own = _drafted(draft, answers[:count])
        target = teacher.target
        head = build_head(
            HeadConfig(
                architecture="specdec_plus_plus",
                target=target,
                taps=(target.layers,),
                draft_vocab_size=target.vocab_size,
                settings={"blocks": BLOCKS},
            )
        )
        assert isinstance(head, AcceptanceHead)

        def show(part: float, loss: float) -> None:
            options.stage(f"fit the head · held-out loss {loss:.3f}", int(1000 * part), 1000)

        progress = fit(head, (states, accepted), (their_states, truth), options.trainer, show)
        check_weights(head, "the head", "train again with a lower --learning-rate")
        with torch.no_grad():
            estimates = head.fuse(their_states)[:, 0].sigmoid()
    card = AcceptanceCard(
        recipe=options.recipe,
        model=options.model,
        assistant_model=options.draft.source,
        command=options.command,
        data=tuple(file.name for file in options.data),
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        tokens=len(states),
        held_out=len(truth),
        accepted=round(float(truth.float().mean()), 4),
        estimate=round(float(estimates.mean()), 4),
        calibration_error=round(calibration_error(estimates, truth), 4),
        own_calibration_error=round(calibration_error(own, truth), 4),
        minutes=round(progress.seconds / 60, 2),
        updates=progress.updates,
        machine=machine.describe(gpu_name()),
        seed=options.trainer.seed,
        torch=torch.__version__,
    )
    options.write(lambda: save_head(head, options.output, card.texts(options.output.name)))
    return card


def _drafted(draft: PreTrainedModel, texts: Sequence[Text]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `drafted` does. Raises HeadError if there is no text, or if all tokens are right, or none."""
    if not texts:
        raise HeadError("the model's answers are too few; give more prompts")
    states, accepted, own = drafted(draft, texts)
    if accepted.all() or not accepted.any():
        which = "all" if accepted.all() else "none"
        raise HeadError(f"{which} of the draft model's {len(accepted)} tokens are right; give more prompts")
    return states, accepted, own
