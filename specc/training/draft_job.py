"""Train a draft model: make one of the model or take one, distil it, measure it, write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from specc import machine
from specc.huggingface import load_tokenizer
from specc.huggingface.recursive import ENTRY, loops_of
from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.acceptance import summary
from specc.training.costs import check_costs
from specc.training.device import gpu_name, load_here
from specc.training.distil import Distiller, Text, exit_alphas, ranks, write
from specc.training.divergences import divergence_of
from specc.training.draft_card import DraftCard, ExitRate
from specc.training.draft_kinds import KINDS
from specc.training.exits import parameters_read
from specc.training.finite import check_weights
from specc.training.gain import predict_chains
from specc.training.held_out import held_out_count
from specc.training.job import CHECKPOINT, DEPTHS, Options, ends_of, same_random_numbers
from specc.training.model_folder import save_model
from specc.training.positions import kept_places, within_positions
from specc.training.prompts import Prompt, read_prompts
from specc.training.record import RecordingOptions
from specc.training.served import served_texts


def train_draft(options: Options) -> DraftCard:
    """Distil a draft model and write its directory. A run that was interrupted goes on where it stopped.

    Raises:
        HeadError: the output exists, the draft cannot be made of the model, or the loss is not a number.
        CaptureError: a model does not load.
        PromptError: a file of prompts is malformed.
    """
    choice = options.draft
    divergence = divergence_of(choice.divergence)
    options = within_positions(options)
    options.begin()
    options.stage("load the model", 0, 1)
    model, tokenizer = load_here(options.model), load_tokenizer(options.model)
    check_costs(options.costs_from, model, options.model)
    kind = KINDS[options.recipe]
    draft, layers = kind.begin(model, options)
    options = within_positions(within_positions(options, model), draft, choice.source)
    text, exits = options.recording, kind.exits(draft)
    processes.use_threads()
    with same_random_numbers(options.trainer.seed):
        ends = ends_of(model)
        options.stage("answer the prompts", 0, 1)
        held_out, prompts, answers = texts_of(options, model, tokenizer)
        sampled = write(model, held_out, text.answer_tokens, ends, 1.0, text.seed + 1)
        greedy = write(model, held_out, text.answer_tokens, ends, 0.0, text.seed)
        if not answers or not sampled or not greedy:
            raise HeadError("the model's answers are empty; give other prompts")
        settings = {
            "layers": list(layers),
            "exits": list(exits),
            "recursive": getattr(draft.config, ENTRY, {}),
            "source": choice.source,
            "divergence": choice.divergence,
            "own_text": choice.own_text,
            "online": choice.online,
            "prompts": [len(prompts), sum(map(len, answers))],
            "trainer": {"learning_rate": options.trainer.learning_rate, "seed": options.trainer.seed},
        }
        before = exit_alphas(draft, model, sampled, exits)
        distiller = Distiller(
            draft,
            model,
            divergence,
            choice.own_text,
            options.trainer,
            options.work / CHECKPOINT,
            settings,
            choice.online,
            exits,
        )

        def show(part: float, loss: float) -> None:
            options.stage(f"distil · loss {loss:.3f}", int(1000 * part), 1000)

        progress = distiller.run(answers, prompts, text.answer_tokens, ends, show)
        check_weights(draft, "the draft model", "train again with a lower --learning-rate")
        options.stage("measure the draft model", 0, 1)
        after = exit_alphas(draft, model, sampled, exits)
        ranked = [ranks(draft, model, greedy, DEPTHS, count) for count in exits]
        rates = _exit_rates(exits, before, after, ranked)
        usual, acceptance = rates[kind.usual], summary(ranked[kind.usual])
        whole = sum(parameter.numel() for parameter in model.parameters())
        share = parameters_read(draft, usual.layers) / whole
        card = DraftCard(
            recipe=options.recipe,
            model=options.model,
            source=choice.source,
            layers=layers,
            command=options.command,
            data=tuple(file.name for file in options.data),
            divergence=choice.divergence,
            own_text=choice.own_text,
            loops=loops_of(draft),
            rank=getattr(draft.config, ENTRY, {}).get("rank", 0),
            parameters=sum(parameter.numel() for parameter in draft.parameters()),
            minutes=round(progress.seconds / 60, 2),
            updates=progress.updates,
            trained_tokens=progress.tokens,
            losses=tuple(progress.losses[max(progress.losses, key=int)]) if progress.losses else (),
            alpha_before=usual.alpha_before,
            alpha=usual.alpha,
            exits=rates if len(rates) > 1 else (),
            acceptance=acceptance,
            gain=predict_chains(
                lambda drafted: drafted * share, lambda drafted: drafted + 1, acceptance, options.costs
            ),
            machine=machine.describe(gpu_name()),
            seed=options.trainer.seed,
            torch=torch.__version__,
        )
    options.write(lambda: save_model(draft, tokenizer, options.output, card.texts(options.output.name)))
    return card


def _exit_rates(
    exits: Sequence[int], before: np.ndarray, after: np.ndarray, ranked: Sequence[Sequence[np.ndarray]]
) -> tuple[ExitRate, ...]:
    """Sum up what each exit reaches.

    Args:
        exits: the number of layers before each.
        before: how often its tokens were accepted before the training, [E, texts].
        after: how often they are now.
        ranked: for each exit, the ranks of each text's tokens, see `ranks`.
    """
    return tuple(
        ExitRate(
            layers=count,
            alpha_before=round(float(before[index].mean()), 4),
            alpha=round(float(after[index].mean()), 4),
            right=round(float((np.concatenate(ranked[index], 1)[0] == 0).mean()), 4),
        )
        for index, count in enumerate(exits)
    )


def texts_of(options: Options, model: PreTrainedModel, tokenizer: Any) -> tuple[list[Prompt], list[Prompt], list[Text]]:
    """Return held-out prompts, those to train on, and answers to the latter: served ones, or new ones of the model.

    Raises:
        PromptError: a file is malformed.
    """
    choice, text = options.draft, options.recording
    served: list[Text] = []
    if choice.answers:
        served = [_cut(one, text) for one in served_texts(options.data, choice.answers, tokenizer, text.seed)]
        prompts = [Prompt(tuple(one.tokens[: one.prompt].tolist())) for one in served]
    else:
        prompts = read_prompts(options.data, tokenizer, count=text.prompts, longest=text.prompt_tokens, seed=text.seed)
    count = held_out_count(text.held_out, len(prompts))
    held_out, prompts = prompts[:count], prompts[count:]
    answers = served[count:] or write(model, prompts, text.answer_tokens, ends_of(model), text.temperature, text.seed)
    return held_out, prompts, answers


def _cut(served: Text, text: RecordingOptions) -> Text:
    """Cut a text that was served to the positions."""
    places = kept_places(len(served), served.prompt, text)
    return Text(tokens=served.tokens[places], prompt=sum(place < served.prompt for place in places))
