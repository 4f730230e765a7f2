"""Train a head that judges tokens: answers, marks, states, fit, measure, write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from specc import machine
from specc.heads import HeadConfig, build_head, save_head
from specc.heads.judge import Judge
from specc.huggingface import load_tokenizer
from specc.machine import Machine
from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.device import gpu_name, load_here
from specc.training.distil import write
from specc.training.finite import check_weights
from specc.training.job import Options, ends_of, same_random_numbers
from specc.training.judge import Marked, auc, corrupt, fit, fitting, judged_rows, read_marked, split
from specc.training.positions import within_positions
from specc.training.prompts import read_prompts
from specc.training.teacher import teacher_of
from specc.training.training_card import TrainingCard


@dataclass(frozen=True, kw_only=True)
class JudgeCard(TrainingCard):
    """The facts of a head that judges tokens.

    Attributes:
        recipe: how it was trained.
        model: the model that it was trained for.
        command: the command line.
        data: the files; empty for the prompts that ship with specc.
        marks: `data` if the files say what is wrong, or `random tokens`.
        good: tokens to train on that are good.
        wrong: those that are wrong.
        held_out: tokens that were measured.
        auc: how often a good token scores higher than a wrong one, held out.
        good_kept: the share of good tokens whose probability exceeds one half, held out.
        wrong_kept: that share of wrong tokens.
        machine: where it was trained.
        seed: of everything random.
        torch: the version of torch.
    """

    kind: ClassVar[str] = "head"

    recipe: str
    model: str
    command: str
    data: tuple[str, ...]
    marks: str
    good: int
    wrong: int
    held_out: int
    auc: float
    good_kept: float
    wrong_kept: float
    machine: Machine
    seed: int
    torch: str

    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""
        return {
            "head": f"{output}, which judges tokens; recipes that use it are lossy",
            "text": f"{self.good:,} good tokens and {self.wrong:,} wrong ones, by {self.marks}",
            "held out": f"AUC {self.auc:.3f} on {self.held_out:,} tokens",
            "kept at 0.5": f"{self.good_kept:.1%} of the good tokens, {self.wrong_kept:.1%} of the wrong ones",
        }

    def next_command(self, output: str) -> str:
        """Return the command that compiles the head."""
        return (
            f"specc compile {self.model} --assistant-model SMALL --head {output} --recipe judge-decoding -o model.specc"
        )

    def readme(self, name: str) -> str:
        """Return the page of a head with this name."""
        return self.page(name, f"A head for {self.model}, trained by `specc train`.")


def train_judge(options: Options) -> JudgeCard:
    """Fit a head that judges tokens, and write its directory.

    Raises:
        HeadError: the output exists, or the texts have no wrong token or no good one.
        CaptureError: the model does not load.
        PromptError: a file is malformed.
    """
    processes.check_alone("the training of judge-decoding")
    options = within_positions(options)
    options.places.check()
    options.stage("load the model", 0, 1)
    model, tokenizer = load_here(options.model), load_tokenizer(options.model)
    options = within_positions(options, model)
    text = options.recording
    teacher = teacher_of(model, options.model)
    processes.use_threads()
    with same_random_numbers(options.trainer.seed):
        marked: list[Marked] = [one for file in options.data for one in read_marked(file, tokenizer)]
        marks = "data" if marked else "random tokens"
        if not marked:
            prompts = read_prompts(
                options.data, tokenizer, count=text.prompts, longest=text.prompt_tokens, seed=text.seed
            )
            options.stage("answer the prompts", 0, 1)
            answers = write(model, prompts, text.answer_tokens, ends_of(model), text.temperature, text.seed)
            marked = corrupt(answers, teacher.target.vocab_size, text.seed)
        training, held_out = split([fitting(one, text) for one in marked], text.held_out, text.seed)
        options.stage("read the states", 0, 1)
        if not training:
            raise HeadError("there are fewer than two marked answers; give more")
        (states, good), (their_states, theirs) = (judged_rows(model, part) for part in (training, held_out))
        for part, where in ((good, "the text to train on"), (theirs, "the held-out text")):
            if part.all() or not part.any():
                raise HeadError(f"{where} has no {'wrong' if part.all() else 'good'} token; give more marked answers")
        options.stage("fit the head", 0, 1)
        target = teacher.target
        head = build_head(
            HeadConfig(architecture="judge", target=target, taps=(target.layers,), draft_vocab_size=target.vocab_size)
        )
        assert isinstance(head, Judge)
        weight, bias = fit(states, good)
        head.load_state_dict({"score.weight": weight, "score.bias": bias})
        check_weights(head, "the head", f"look for such numbers in the weights of {options.model}")
        scores = head.fuse(their_states)[:, 0].detach()
    card = JudgeCard(
        recipe=options.recipe,
        model=options.model,
        command=options.command,
        data=tuple(file.name for file in options.data),
        marks=marks,
        good=int(good.sum()),
        wrong=int((~good).sum()),
        held_out=len(theirs),
        auc=round(auc(scores, theirs), 4),
        good_kept=round(float((scores[theirs] > 0).float().mean()), 4),
        wrong_kept=round(float((scores[~theirs] > 0).float().mean()), 4),
        machine=machine.describe(gpu_name()),
        seed=options.trainer.seed,
        torch=torch.__version__,
    )
    options.write(lambda: save_head(head, options.output, card.texts(options.output.name)))
    return card
