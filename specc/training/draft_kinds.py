"""The kinds of draft models that are distilled: how each begins, and at which exits it learns.

S2D (Kavehzadeh et al. 2024, arXiv:2407.01955) sorts a draft model: its first layers, more of them and all of them each
learn to draft, by the sum of their losses. It departs from the paper in two points: each loss is the distance from the
model's probabilities, in place of the cross-entropy with a text; and the draft is cut from the model, or is one that
the user names.

A recursive draft model (Bae et al. 2024, arXiv:2410.20672) learns so after each loop. The paper gives the loss after
the last loop more weight, since its early exits are not verified. Here all have one weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from specc.huggingface.recursive import divisors, loops_of
from specc.recipes.draft_model import default_exits
from specc.runtime.errors import HeadError
from specc.training.cut import cut, kept_layers
from specc.training.device import load_here
from specc.training.job import Options
from specc.training.recursive import share_layers
from specc.training.states import layers_of

LEAST_LOOPS = 3  # unless the user gives another number: an exit after one of 2 loops runs half of the model


@dataclass(frozen=True, kw_only=True)
class DraftKind:
    """A kind of draft models.

    Attributes:
        begin: returns a draft model for a model, and the layers of the model that it was cut from, if it was.
        exits: the number of layers before each exit at which a draft model learns, fewest first.
        usual: the index of the exit by which the recipe drafts.
        reads: the options of `specc train` that only drafts of this kind read, by the names of its parameters.
    """

    begin: Callable[[PreTrainedModel, Options], tuple[PreTrainedModel, tuple[int, ...]]]
    exits: Callable[[PreTrainedModel], tuple[int, ...]]
    usual: int
    reads: frozenset[str]


def _all_layers(draft: PreTrainedModel) -> tuple[int, ...]:
    return (len(layers_of(draft)),)


def _nested_exits(draft: PreTrainedModel) -> tuple[int, ...]:
    return default_exits(len(layers_of(draft)))


def _ends_of_loops(draft: PreTrainedModel) -> tuple[int, ...]:
    block = len(layers_of(draft)) // loops_of(draft)
    return tuple(range(block, len(layers_of(draft)) + 1, block))


def _begin_cut(model: PreTrainedModel, options: Options) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """Load the draft model that the options name, or cut one from the model.

    Raises:
        CaptureError: it does not load.
        HeadError: it cannot be cut, or its vocabulary is not as large as the model's.
    """
    if options.draft.source:
        return load_draft(options, model), ()
    layers = tuple(kept_layers(len(layers_of(model)), options.draft.layers))
    return cut(model, layers), layers


def _begin_recursive(model: PreTrainedModel, options: Options) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """Load the recursive draft model that the options name, or make one of the model.

    Raises:
        CaptureError: it does not load.
        HeadError: the model cannot be made recursive, or the draft model is not, or it has another vocabulary.
    """
    choice = options.draft
    if choice.source:
        draft = load_draft(options, model)
        if loops_of(draft) < 2:
            raise HeadError(f"{choice.source} has no loops; leave out --assistant-model to make one of the model")
        return draft, ()
    possible = divisors(len(layers_of(model)))
    loops = min((count for count in possible if count >= LEAST_LOOPS), default=2)
    return share_layers(model, choice.loops or loops, choice.rank), ()


def load_draft(options: Options, model: PreTrainedModel) -> PreTrainedModel:
    """Load the draft model that the options name.

    Raises:
        CaptureError: it does not load.
        HeadError: its vocabulary is not as large as the model's.
    """
    draft = load_here(options.draft.source)
    ours, theirs = (each.config.get_text_config().vocab_size for each in (model, draft))
    if ours != theirs:
        raise HeadError(
            f"{options.draft.source} has {theirs} tokens and {options.model} has {ours}; name a draft model with the "
            "model's tokenizer"
        )
    return draft


CUT = frozenset({"draft_layers"})
KINDS: Mapping[str, DraftKind] = {
    "draft-model": DraftKind(begin=_begin_cut, exits=_all_layers, usual=-1, reads=CUT),
    "s2d": DraftKind(begin=_begin_cut, exits=_nested_exits, usual=-1, reads=CUT),
    "relaxed-recursive": DraftKind(
        begin=_begin_recursive, exits=_ends_of_loops, usual=0, reads=frozenset({"loops", "rank"})
    ),
}
