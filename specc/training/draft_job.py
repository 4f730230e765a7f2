"""Train a draft model: cut it from the model or take one, distil it, measure it, write it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from specc import machine
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.environment import threads
from specc.runtime.errors import HeadError, first_line
from specc.training.acceptance import summary
from specc.training.cut import cut, kept_layers
from specc.training.distil import Distiller, Text, alphas, ranks, write
from specc.training.divergences import divergence_of
from specc.training.draft_card import DraftCard
from specc.training.gain import predict_chains
from specc.training.job import CHECKPOINT, DEPTHS, Options, ends_of, same_random_numbers
from specc.training.prompts import Prompt, read_prompts
from specc.training.served import served_texts
from specc.training.states import layers_of

PARTIAL = ".partial"


def train_draft(options: Options) -> DraftCard:
    """Distil a draft model and write its directory. A run that was interrupted goes on where it stopped.

    Raises:
        HeadError: the output exists, the draft cannot be cut, or the loss is not a number.
        CaptureError: a model does not load.
        PromptError: a file of prompts is malformed.
    """
    choice, text = options.draft, options.recording
    divergence = divergence_of(choice.divergence)
    options.check_output()
    options.stage("load the model", 0, 1)
    model, tokenizer = load_model(options.model), load_tokenizer(options.model)
    layers = () if choice.source else tuple(kept_layers(len(layers_of(model)), choice.layers))
    draft = _draft(options, model, layers)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads())
    with same_random_numbers(options.trainer.seed):
        ends = ends_of(model)
        options.stage("answer the prompts", 0, 1)
        held_out, prompts, answers = _texts(options, model, tokenizer)
        sampled = write(model, held_out, text.answer_tokens, ends, 1.0, text.seed + 1)
        greedy = write(model, held_out, text.answer_tokens, ends, 0.0, text.seed)
        if not answers or not sampled or not greedy:
            raise HeadError("the model's answers are empty; give other prompts")
        settings = {
            "layers": list(layers),
            "source": choice.source,
            "divergence": choice.divergence,
            "own_text": choice.own_text,
            "online": choice.online,
            "prompts": [len(prompts), sum(map(len, answers))],
            "trainer": {"learning_rate": options.trainer.learning_rate, "seed": options.trainer.seed},
        }
        before = alphas(draft, model, sampled)
        distiller = Distiller(
            draft,
            model,
            divergence,
            choice.own_text,
            options.trainer,
            options.work / CHECKPOINT,
            settings,
            choice.online,
        )

        def show(part: float, loss: float) -> None:
            options.stage(f"distil · loss {loss:.3f}", int(1000 * part), 1000)

        progress = distiller.run(answers, prompts, text.answer_tokens, ends, show)
        options.stage("measure the draft model", 0, 1)
        after = alphas(draft, model, sampled)
        acceptance = summary(ranks(draft, model, greedy, DEPTHS))
        size, whole = (sum(parameter.numel() for parameter in each.parameters()) for each in (draft, model))
        card = DraftCard(
            recipe=options.recipe,
            model=options.model,
            source=choice.source,
            layers=layers,
            command=options.command,
            data=tuple(file.name for file in options.data),
            divergence=choice.divergence,
            own_text=choice.own_text,
            parameters=size,
            minutes=round(progress.seconds / 60, 2),
            updates=progress.updates,
            trained_tokens=progress.tokens,
            losses=tuple(progress.losses[max(progress.losses, key=int)]) if progress.losses else (),
            alpha_before=round(sum(before) / len(before), 4),
            alpha=round(sum(after) / len(after), 4),
            acceptance=acceptance,
            gain=predict_chains(
                lambda drafted: drafted * size / whole, lambda drafted: drafted + 1, acceptance, options.costs
            ),
            machine=machine.describe(),
            seed=options.trainer.seed,
            torch=torch.__version__,
        )
    save_draft(draft, tokenizer, options.output, card.texts(options.output.name))
    return card


def _texts(options: Options, model: PreTrainedModel, tokenizer: Any) -> tuple[list[Prompt], list[Prompt], list[Text]]:
    """Return held-out prompts, those to train on, and answers to the latter: served ones, or new ones of the model.

    Raises:
        PromptError: a file is malformed.
    """
    choice, text = options.draft, options.recording
    served: list[Text] = []
    if choice.answers:
        served = served_texts(options.data, choice.answers, tokenizer, text.seed)
        prompts = [Prompt(tuple(one.tokens[: one.prompt].tolist())) for one in served]
    else:
        prompts = read_prompts(options.data, tokenizer, count=text.prompts, longest=text.prompt_tokens, seed=text.seed)
    count = min(text.held_out, max(1, len(prompts) // 5))
    held_out, prompts = prompts[:count], prompts[count:]
    answers = served[count:] or write(model, prompts, text.answer_tokens, ends_of(model), text.temperature, text.seed)
    return held_out, prompts, answers


def _draft(options: Options, model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return the draft model as it is before the training.

    Raises:
        HeadError: its vocabulary is not as large as the model's.
    """
    return load_draft(options, model) if options.draft.source else cut(model, layers)


def load_draft(options: Options, model: PreTrainedModel) -> PreTrainedModel:
    """Load the draft model that the options name.

    Raises:
        CaptureError: it does not load.
        HeadError: its vocabulary is not as large as the model's.
    """
    draft = load_model(options.draft.source)
    ours, theirs = (each.config.get_text_config().vocab_size for each in (model, draft))
    if ours != theirs:
        raise HeadError(
            f"{options.draft.source} has {theirs} tokens and {options.model} has {ours}; name a draft model with the "
            "model's tokenizer"
        )
    return draft


def save_draft(draft: PreTrainedModel, tokenizer: Any, directory: Path, texts: dict[str, str]) -> None:
    """Write a draft model's directory, with its tokenizer. It appears whole or not at all.

    Raises:
        HeadError: it cannot be written.
    """
    partial = directory.with_name(f".{directory.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        draft.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(partial, directory)
    except Exception as e:  # safetensors and tokenizers raise exceptions of their own where the disk is full
        raise HeadError(f"cannot write {directory}: {first_line(e)}; free some space, or choose another place") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
