"""Methods that draft by a second, smaller model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specc.recipes.blocks import (
    CONFIDENCE,
    RANKED_OUTPUTS,
    chains,
    check_matches,
    count,
    draft_model,
    length_arguments,
    prefill,
    rule_parameters,
)
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Layers
from specc.runtime.drafters import check_probability
from specc.runtime.drafters.entropy_adaptive import check_entropy
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def plan_draft_model(values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains by a draft model, whose length a policy decides."""
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, draft_model(Tree.chain(1)), length_arguments(values))


def plan_with_rule(acceptance: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan a draft model, and give the values that belong to the acceptance rule to it."""
    return replace(plan_draft_model(values, facts), rule=rule_parameters(acceptance, values))


DRAFT_MODEL = Method(
    name="draft-model",
    title="Speculative decoding with a draft model",
    try_when="A model of a tenth of the size with this tokenizer exists, or 'specc train' made one.",
    about=(
        "A second, smaller model drafts a few tokens, one a call. The model runs all of them in one step. It keeps the "
        "tokens up to the first one that it would not have chosen. Its own token follows them. The more alike the two "
        "models are, the more tokens a step gives."
    ),
    paper="Leviathan et al. 2023, arXiv:2211.17192; for requests that run together BASS, Qian et al. 2024, "
    "arXiv:2404.15778; drafts that 'specc train' distils: DistillSpec, Zhou et al. 2023, arXiv:2310.08461; drafts that "
    "it cuts from the model: Decoding Speculative Decoding, Yan et al. 2024, arXiv:2402.01528; drafts that learn from "
    "what was served: Online Speculative Decoding, Liu et al. 2023, arXiv:2310.07177",
    departures=(
        "Acceptance is by match unless a request asks for speculative, the rule of the paper: then a seed gives the "
        "tokens of plain decoding.",
        "A draft that is distilled keeps its tables and its last norm; DistillSpec trains all of it.",
        "A draft that is cut from the model keeps layers at equal distances; Yan et al. prune by learned masks.",
        "New weights are put into a bundle, which a program loads again; Liu et al. change those of a running model.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    plan=plan_draft_model,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_confidence_threshold": CONFIDENCE,
        "rejection_threshold": Parameter(1.0, "drafting stops once a rejection is likelier than this; 1 never stops"),
        "num_assistant_tokens_schedule": Parameter("constant", "schedule of the length: constant, heuristic or bass"),
    },
    needs=("assistant-model",),
)


CONTRASTIVE = Method(
    name="contrastive",
    title="Speculative contrastive decoding (lossy: the draft model says what not to choose)",
    try_when="Answers shall be better than the model's own, and a much weaker model with this tokenizer exists.",
    about=(
        "The draft model does two things: it drafts, and it says what not to choose. The score of a token is the "
        "model's logit less a share of the draft model's. Tokens that the model finds unlikely are never chosen. "
        "Drafts are accepted by speculative sampling against that score. So answers are those of contrastive decoding, "
        "and not the model's own."
    ),
    paper="Speculative Contrastive Decoding, Yuan et al. 2024, arXiv:2311.08981",
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    length="confidence",
    plan=partial(plan_with_rule, "contrastive"),
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_confidence_threshold": CONFIDENCE,
        "alpha": Parameter(0.1, "share of the largest probability that a token needs", "0.1 in O'Brien & Lewis 2023"),
        "beta": Parameter(
            0.5,
            "weight of the draft model. With alpha 0 and beta 0 the text is the model's own",
            "0.5 in O'Brien & Lewis 2023",
        ),
    },
    acceptance="contrastive",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


SPECDEC = Method(
    name="specdec",
    title="SpecDec's rule: drafted tokens that the model ranks high stay (lossy)",
    try_when="Speed matters more than the model's own words, and a draft model names good tokens in another order.",
    about=(
        "A draft model drafts a long chain. The model runs the chain in one step, as for speculative decoding. A "
        "drafted token stays if it is among the model's likeliest ones and not much less likely than the first. The "
        "first token that is not ends the draft, and the model's own follows. So the answer may differ from the "
        "model's own, unless beta is 1."
    ),
    paper="SpecDec, Xia et al. 2023, arXiv:2203.16487: its rule, over a draft model",
    departures=(
        "The draft is an independent model; the paper trains a decoder that fills a block of 25 tokens in one pass, "
        "behind the encoder of a model that has one.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    plan=partial(plan_with_rule, "top_beta"),
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft", "25"),
        "beta": Parameter(5, "lossy: the number of likeliest tokens among which a token must be; 1 is lossless", "5"),
        "gap": Parameter(3.0, "by how much its log-probability may be smaller than that of the first, in nats", "3"),
    },
    acceptance="top_beta",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


BILD = Method(
    name="bild",
    title="Big Little Decoder (lossy: the model corrects only what it finds very unlikely)",
    try_when="Speed matters more than the model's own words, and a good smaller model with this tokenizer exists.",
    about=(
        "A small model writes until it is unsure. Then the large model runs over what it wrote. A token that the large "
        "model finds very unlikely is replaced, and what follows it is dropped. All others stay, though the large "
        "model might have chosen otherwise. So the answer may differ from the large model's own."
    ),
    paper="BiLD, Kim et al. 2023, arXiv:2302.07863",
    family=Family.ROUTING,
    drafter="draft-model",
    topology="chain",
    length="fallback",
    schedule="routed",
    plan=partial(plan_with_rule, "distance"),
    parameters={
        "num_speculative_tokens": Parameter(10, "tokens of the small model in a row at most", "10"),
        "fallback_threshold": Parameter(
            0.6, "drafting stops before a token if the largest probability is smaller", "0.6"
        ),
        "rollback_threshold": Parameter(
            5.0, "lossy: the cross-entropy that a drafted token may have, in nats. 0 is lossless", "2 to 5"
        ),
    },
    acceptance="distance",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


def _plan_entropy_adaptive(values: Values, facts: Facts) -> MethodBlocks:
    for name in ("entropy_window", "least_tokens"):
        count(values, name)
    check_entropy(values["entropy_threshold"])
    return replace(plan_draft_model(values, facts), arguments=dict(values))


ENTROPY_ADAPTIVE = Method(
    name="entropy-adaptive",
    title="Entropy Adaptive Decoding (lossy: a draft model writes where the text is easy, and nothing is verified)",
    try_when="Long parts of a text are so easy that a smaller model with this tokenizer can write them alone.",
    about=(
        "Two models take turns. The entropy of the last tokens says whether the text is easy or hard at this place. "
        "The small model writes where it is easy, and nothing is verified. The large model writes where it is hard. So "
        "the answer is that of both models."
    ),
    paper="Entropy Adaptive Decoding, Simonds 2025, arXiv:2502.06833",
    departures=(
        "The large model runs once for every run of the small one, to catch up on its tokens; the paper catches up "
        "only when it takes over.",
    ),
    family=Family.ROUTING,
    drafter="entropy-adaptive",
    topology="chain",
    length="entropy",
    schedule="routed",
    plan=_plan_entropy_adaptive,
    parameters={
        "num_speculative_tokens": Parameter(7, "tokens drafted in a step at most"),
        "entropy_threshold": Parameter(
            1.0,
            "lossy: mean entropy, in bits, from which on the large model writes. 0 is lossless",
            "varies",
        ),
        "entropy_window": Parameter(5, "number of last tokens in the mean"),
        "least_tokens": Parameter(1, "tokens that one model writes before the other takes over, at least"),
    },
    acceptance="trust",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


def _plan_pearl(values: Values, facts: Facts) -> MethodBlocks:
    tokens = count(values, "num_speculative_tokens")
    return MethodBlocks(chains(1 + tokens), draft_model(Tree.chain(1)), dict(values))


PEARL = Method(
    name="pearl",
    title="PEARL: a draft model that drafts while the model verifies",
    try_when="A draft model exists, and two engines at once are faster here than one after the other.",
    about=(
        "The draft model and the model run at the same time. While the model runs the pending token, the draft model "
        "drafts what may follow. If the first drafted token is right, the others are verified in the next step, and "
        "the draft model goes on behind them meanwhile. If a token is wrong, what was drafted behind it is dropped. So "
        "drafting costs no time of its own where both fit on the machine."
    ),
    paper="PEARL, Liu et al. 2024, arXiv:2408.11850",
    departures=(
        "Acceptance is by match and not by min(1, p / q), since the first drafted token is compared before the model "
        "has run it. A seed then gives the tokens of plain decoding.",
        "The model's own token after an accepted draft counts too, and the draft goes on only if it agrees.",
    ),
    family=Family.SECOND_MODEL,
    drafter="pearl",
    topology="chain",
    schedule="parallel",
    plan=_plan_pearl,
    parameters={"num_speculative_tokens": Parameter(LENGTHS.draft, "tokens drafted while the model runs once, gamma")},
    by_default=False,
    needs=("assistant-model",),
)


def _plan_copyspec_draft(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    longest = max(count(values, "prompt_lookup_num_tokens"), count(values, "num_speculative_tokens"))
    return MethodBlocks(chains(1 + longest), draft_model(Tree.chain(1)), dict(values))


COPYSPEC_DRAFT = Method(
    name="copyspec-draft",
    title="CopySpec over a draft model: copy what occurred before, and draft elsewhere",
    try_when="A draft model exists, and the answer also repeats long parts of the text.",
    about=(
        "It remembers where each run of five tokens first occurred. When the last five tokens occur again, it copies "
        "the ten tokens that followed them, which costs no call of a model. Otherwise a draft model drafts. The model "
        "verifies the copy or the draft in one step. The draft model reads copied tokens only when it drafts again."
    ),
    paper="Dumitru et al. 2025, arXiv:2502.08923, over speculative decoding",
    family=Family.SECOND_MODEL,
    drafter="copy-spec-draft",
    topology="chain",
    length="match",
    schedule="union",
    plan=_plan_copyspec_draft,
    parameters={
        "min_matching_ngram_size": Parameter(5, "tokens that must match, gamma", "5"),
        "prompt_lookup_num_tokens": Parameter(10, "the largest number of copied tokens", "10"),
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens that the draft model drafts"),
    },
    by_default=False,
    needs=("assistant-model",),
)


def default_exits(layers: int) -> tuple[int, ...]:
    """Return after how many of a draft model's layers its exits are: half, three quarters and all of them."""
    return tuple(sorted({max(1, layers * share // 4) for share in (2, 3, 4)}))


def _plan_s2d(values: Values, facts: Facts) -> MethodBlocks:
    tokens, exits = count(values, "num_speculative_tokens"), values["exits"]
    check_probability(exit_threshold=values["exit_threshold"])
    if exits is None:
        exits = default_exits(facts.assistant_layers)
    if not isinstance(exits, (list, tuple)) or not exits or not all(type(layer) is int for layer in exits):
        raise RecipeError(f"exits is {exits!r}; give the layers of each exit, such as [2, 4]")
    if sorted(set(exits)) != list(exits) or not 1 <= exits[0] <= exits[-1] <= facts.assistant_layers:
        raise RecipeError(
            f"exits is {exits!r}; give rising numbers from 1 to {facts.assistant_layers}, the draft's layers"
        )
    threshold = values["exit_threshold"]
    if len(exits) == 1:  # No exit is left to ask again. A copy of one slot drafts, and the wide one reads the text.
        exits, threshold = [*exits, *exits], 0.0
    engines = {"prefill": prefill("assistant")}
    for number, layer in enumerate(exits):
        layers = Layers() if layer == facts.assistant_layers else Layers(exit_after=layer)
        chain = Tree.chain(1 + tokens if number else 1)
        engines[f"exit_{number}"] = Block(chain, RANKED_OUTPUTS, layers, model="assistant", cache="assistant")
    arguments = {"num_speculative_tokens": tokens, "exit_threshold": threshold}
    return MethodBlocks(chains(1 + tokens), engines, arguments)


S2D = Method(
    name="s2d",
    title="S2D: a draft model with several exits, of which each token takes the first that is sure",
    try_when="A draft model has many layers, and most of its tokens are easy.",
    about=(
        "A draft model can end after several of its layers. Each token is drafted by the exit with fewest layers. If "
        "that exit is unsure, the next one drafts the token again, with more layers. So easy tokens cost little, and "
        "one draft model serves targets of several sizes. The model verifies the chain in one step."
    ),
    paper="S2D, Kavehzadeh et al. 2024, arXiv:2407.01955",
    departures=(
        "'specc train --recipe s2d' trains these exits by the model's probabilities; the paper by text. Without it "
        "shallow exits are seldom sure.",
        "A deeper exit runs the layers of the shallower one again, since the exits return no hidden states.",
        "The first token of a draft comes from the deepest exit, whose call also completes the rows of the last step.",
    ),
    family=Family.SECOND_MODEL,
    drafter="nested-exits",
    topology="chain",
    plan=_plan_s2d,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "exits": Parameter(
            None,
            "layers of each exit (default: half, three quarters and all of the draft's). With one exit it is plain "
            "drafting by that exit",
            "6, 9, 12",
        ),
        "exit_threshold": Parameter(0.6, "a token with less probability is drafted again by the next exit", "varies"),
    },
    by_default=False,
    needs=("assistant-model",),
)


def _plan_easyspec(values: Values, facts: Facts) -> MethodBlocks:
    group, longest = count(values, "parallel_layers"), 1 + count(values, "num_speculative_tokens")
    if group > max(1, facts.assistant_layers):
        raise RecipeError(
            f"parallel_layers is {group}, and the draft model has {facts.assistant_layers} layers; give fewer"
        )
    exact = draft_model(Tree.chain(1))
    engines = {
        **exact,
        "draft": replace(exact["draft"], layers=Layers(parallel_group=group)),
        "calibrate": replace(exact["draft"], topology=Tree.chain(longest)),
    }
    return MethodBlocks(chains(longest), engines, length_arguments(values))


EASYSPEC = Method(
    name="easyspec",
    title="EasySpec: a draft model whose layers run in parallel groups, with exact rows",
    try_when="The draft model has many layers, and the machine can run several of them at the same time.",
    about=(
        "Within a group of layers of the draft model, the attention of each layer reads what enters the group. So "
        "these layers wait for each other less. The tokens that it drafts so are not quite the draft model's. After "
        "each step the exact draft model runs the accepted tokens once, which puts its rows right and gives the first "
        "drafted token. The model verifies the chain in one step."
    ),
    paper="EasySpec, Wu et al. 2025, arXiv:2502.02493",
    departures=(
        "The layers of a group run one after another here: one CPU has no devices to spread them over. So nothing is "
        "gained in time, and the draft is only shorter on its longest way.",
        "Acceptance is by match unless a request asks for speculative, the rule of the paper.",
        "Drafts are chains; the paper drafts trees too.",
    ),
    family=Family.SECOND_MODEL,
    drafter="easy-spec",
    topology="chain",
    plan=_plan_easyspec,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "parallel_layers": Parameter(2, "layers of a group; 1 drafts by the exact draft model", "4"),
    },
    by_default=False,
    needs=("assistant-model",),
)
