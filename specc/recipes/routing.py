"""Methods in which two models take turns: the small one's tokens stay without verification. All are lossy."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import chains, count, draft_model, length_arguments, prefill, rule_parameters
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.tree import Tree

ROUTERS = {
    "num_speculative_tokens": Parameter(7, "tokens of the small model in a row at most", "no bound"),
    "fallback_threshold": Parameter(
        0.5,
        "lossy: the large model is called if the small one's largest probability is below this. 1 is lossless",
        "varies",
    ),
    "margin_threshold": Parameter(
        0.0, "it is also called if half the distance of the two largest probabilities is below this", "varies"
    ),
}


def _plan_oracle(values: Values, facts: Facts) -> MethodBlocks:
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, draft_model(Tree.chain(1)), length_arguments(values))


FS_GEN = Method(
    name="fs-gen",
    title="FS-GEN: a small model writes, and the large one where the small one is unsure (lossy)",
    try_when="Speed matters more than the model's own words, and most tokens are easy for a smaller model.",
    about=(
        "A small model writes token after token. A router looks at its probabilities: at the largest one, or at the "
        "distance of the two largest. Where the small model is unsure, the large model chooses the token. What the "
        "small model wrote stays, and nothing is verified. So the answer is that of both models."
    ),
    paper="FS-GEN, Zhang et al. 2024, arXiv:2406.12295: its routers with the oracle",
    departures=(
        "The large model chooses one token after each run of the small one, also where the router did not ask, since "
        "it must run to catch up on the tokens.",
        "The router that is a trained classifier is left out: it needs data of its own.",
    ),
    family=Family.ROUTING,
    drafter="draft-model",
    topology="chain",
    length="margin",
    schedule="routed",
    plan=_plan_oracle,
    parameters=ROUTERS,
    acceptance="trust",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


def _plan_guided(values: Values, facts: Facts) -> MethodBlocks:
    return replace(_plan_oracle(values, facts), rule=rule_parameters("guided", values))


FS_GEN_CONTRASTIVE = Method(
    name="fs-gen-contrastive",
    title="FS-GEN with contrastive logits (lossy: where the small model is unsure, both models choose)",
    try_when="Answers may differ from the model's own, and a weaker model with this tokenizer exists.",
    about=(
        "A small model writes token after token, as in fs-gen. Where the router finds it unsure, the next token is "
        "chosen by the logits of both models. They are the small model's, moved towards the large one's and beyond. "
        "Tokens that the large model finds unlikely are never chosen. Nothing is verified, so the answer is that of "
        "both models."
    ),
    paper="FS-GEN, Zhang et al. 2024, arXiv:2406.12295: its routers with contrastive decoding",
    family=Family.ROUTING,
    drafter="draft-model",
    topology="chain",
    length="margin",
    schedule="routed",
    plan=_plan_guided,
    parameters={
        **ROUTERS,
        "alpha": Parameter(0.1, "share of the largest probability that a token needs"),
        "beta": Parameter(1.5, "weight of the large model; with 1 and alpha 0 it chooses alone", "varies"),
    },
    acceptance="guided",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


def _plan_proxy(values: Values, facts: Facts) -> MethodBlocks:
    blocks = _plan_oracle(values, facts)
    chain = Block(blocks.verify[-1].topology, model=UNTUNED, cache=UNTUNED)
    engines = {**blocks.engines, "base": chain, "base_prefill": prefill(UNTUNED)}
    return replace(blocks, engines=engines, rule=rule_parameters("proxy", values))


UNTUNED = "untuned"
FS_GEN_PROXY = Method(
    name="fs-gen-proxy",
    title="FS-GEN with proxy tuning (lossy: what tuning changed in a small model is added to the large one)",
    try_when="A small model is tuned and the large one is not, and answers shall be those of a tuned large model.",
    about=(
        "Three models have one tokenizer: a large one that is not tuned, and a small one before and after its tuning. "
        "The tuned small model writes token after token, as in fs-gen. Where the router finds it unsure, the logits of "
        "the large model choose, moved by what the tuning changed in the small one. So the answer is that of all "
        "three. Nothing is verified."
    ),
    paper="FS-GEN, Zhang et al. 2024, arXiv:2406.12295: its routers with proxy tuning",
    departures=(
        "The large model chooses one token after each run of the small one, also where the router did not ask, since "
        "it must run to catch up on the tokens.",
    ),
    family=Family.ROUTING,
    drafter="proxy-tuning",
    topology="chain",
    length="margin",
    schedule="routed",
    plan=_plan_proxy,
    parameters={
        **ROUTERS,
        "alpha": Parameter(1.0, "weight of what the tuning changed; 0 leaves the choice to the model", "1"),
    },
    acceptance="proxy",
    lossless=False,
    by_default=False,
    needs=("assistant-model", "untuned-model"),
)
