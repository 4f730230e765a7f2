"""The axes of a method: the words that an entry of the table, or a recipe file of a user, says them with. No torch."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

from specc.recipes.engines import VERIFY, default_engines
from specc.recipes.entry import Method, Parameter
from specc.runtime import acceptance
from specc.runtime.acceptance import Acceptance

RULES = tuple(sorted(module.name for module in pkgutil.iter_modules(acceptance.__path__)))
THRESHOLD = "drafting stops after a token to which the draft gave less probability"


@dataclass(frozen=True)
class LengthAxis:
    """A rule that ends drafts, as recipes and recipe files name it.

    Attributes:
        help: what it means.
        parameters: its parameters, which a drafter takes that takes any length policy; None if only the drafters of
            some methods have this length.
    """

    help: str
    parameters: Mapping[str, Parameter] | None = None


SCHEDULES = {
    "plain": "nothing is drafted",
    "serial": "a draft, then its verification",
    "fused": "the run that verifies a draft also gives what the next one is made of",
    "staged": "the draft is itself sped up by a drafter of its own",
    "union": "several drafters, each where it is better, or their drafts joined",
    "parallel": "the draft model runs while the model verifies",
    "routed": "two models take turns, and not every token is verified",
}
CACHES = {
    "target": "the rows of the model, which the draft shares",
    "assistant": "rows of the draft model",
    "untuned": "rows of the untuned model",
    "short": "rows of the model for a shortened prompt",
}  # and rows of a trained head, by its architecture
LENGTHS = {
    "none": LengthAxis("nothing is drafted"),
    "fixed": LengthAxis("a number of tokens", {}),
    "tuned": LengthAxis(
        "the number of tokens that `specc tune` finds fastest on the machine; until then, that given", {}
    ),
    "confidence": LengthAxis(
        "until a token of little probability", {"assistant_confidence_threshold": Parameter(0.4, THRESHOLD)}
    ),
    "adaptive": LengthAxis(
        "until a token of little probability, by a threshold that learns (Draft & Verify)",
        {
            "assistant_confidence_threshold": Parameter(0.6, f"{THRESHOLD}, at first"),
            "target_acceptance_rate": Parameter(0.9, "share of accepted tokens towards which the threshold moves"),
        },
    ),
    "cumulative": LengthAxis(
        "until a rejection is likely (SpecDec++; the log-sum-exp of Dynamic Depth Decoding for a chain)",
        {"rejection_threshold": Parameter(0.3, "drafting stops once a rejection is likelier than this")},
    ),
    "fallback": LengthAxis(
        "until the draft is unsure of the next token (BiLD)",
        {"fallback_threshold": Parameter(0.6, "drafting stops before a token if the largest probability is smaller")},
    ),
    "predicted": LengthAxis("as many tokens as a trained head expects to be accepted (AdaEAGLE)"),
    "margin": LengthAxis(
        "until the draft's two likeliest next tokens are close (FS-GEN)",
        {
            "margin_threshold": Parameter(
                0.2, "drafting stops before a token if half the distance of the two largest probabilities is smaller"
            )
        },
    ),
    "heuristic": LengthAxis(
        "2 tokens more after a draft that was accepted whole, else 1 less (transformers)",
        {"num_assistant_tokens_schedule": Parameter("heuristic", "schedule: constant, heuristic or bass")},
    ),
    "bass": LengthAxis(
        "by the rule of BASS",
        {"num_assistant_tokens_schedule": Parameter("bass", "schedule: constant, heuristic or bass")},
    ),
    "match": LengthAxis("as long as the copied text matches"),
    "budget": LengthAxis("a number of nodes, spent where they are likeliest"),
    "mass": LengthAxis("until the beam has little probability (Dynamic Depth Decoding)"),
    "entropy": LengthAxis("while the entropy of the last tokens is low"),
}


def rule_axis(rule: Acceptance) -> dict[str, Parameter]:
    """Return the parameters of an acceptance rule, with their defaults and their ranges."""
    defaults = {name: p.default for name, p in inspect.signature(rule).parameters.items()}
    return {
        name: Parameter(defaults[name], f"of the rule {rule.__name__}: {least:g} to {most:g}")
        for name, (least, most) in rule.ranges.items()
    }


def caches(method: Method) -> tuple[str, ...]:
    """Return the caches that a drafter's engines read with the method's defaults, in order; none if it has no engine.

    Raises:
        RecipeError: a default is out of range, as it may be in a recipe file.
    """
    return tuple(dict.fromkeys(e.cache for e in default_engines(method) if e.role != VERIFY))


def topologies(methods: Mapping[str, Method], drafter: str) -> list[str]:
    """Return the topologies that the methods of a drafter have, each once."""
    return list(dict.fromkeys(m.topology for m in methods.values() if m.drafter == drafter))
