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
from specc.runtime.errors import RecipeError
from specc.runtime.method import RunnableMethod, load_acceptance, load_drafter
from specc.runtime.recipe import Recipe

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


TOPOLOGIES = {
    "none": "the pending token alone",
    "chain": "tokens one after another",
    "static tree": "a tree whose shape is chosen when the bundle is compiled",
    "dynamic tree": "a tree that takes a new shape at each step",
    "comb": "a chain with siblings of its tokens, which have no children",
    "window": "a chain whose tokens have columns of guesses below them, and chains to verify (lookahead)",
    "beam": "the likeliest texts of one length, as the tree of their common beginnings",
    "superposed": "several chains, whose tokens come from one pass over sums of embeddings",
}
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
    "assistant_loop": "rows of the draft model, of each loop apart",
    "untuned": "rows of the untuned model",
    "short": "rows of the model for a shortened prompt",
}  # and rows of a trained head, by its architecture
CORPUS = "corpus"  # A drafter takes the path of the bundle's corpus file as this parameter.
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
    "gate": LengthAxis("until a trained gate lets no token leave at the exit (M2R2)"),
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


def drafters(methods: Mapping[str, Method]) -> dict[str, list[Method]]:
    """Return the drafters of some methods, each with the methods that have it."""
    result: dict[str, list[Method]] = {}
    for m in methods.values():
        result.setdefault(m.drafter, []).append(m)
    return result


def corpus_readers(methods: Mapping[str, Method]) -> list[str]:
    """Return the names of the methods that read a corpus of the bundle: those that need one, and those that may."""
    return [m.name for m in methods.values() if CORPUS in load_drafter(m.drafter).files]


def topologies(methods: Mapping[str, Method], drafter: str) -> list[str]:
    """Return the topologies that the methods of a drafter have, each once."""
    return list(dict.fromkeys(m.topology for m in methods.values() if m.drafter == drafter))


def lengths_for(base: Method) -> list[str]:
    """Return the lengths that a recipe file may give a method: its own, and all with parameters if it takes any."""
    if not load_drafter(base.drafter).takes_length:
        return [base.length]
    return [word for word, axis in LENGTHS.items() if axis.parameters is not None or word == base.length]


def rules_for(base: Method, methods: Mapping[str, Method]) -> list[str]:
    """Return the acceptance rules that a recipe file may give a method.

    Args:
        base: the method.
        methods: the table.
    """

    def takes(name: str) -> bool:
        try:
            check_rule(base, load_acceptance(name), methods)
        except RecipeError:
            return False
        return True

    return [name for name in RULES if takes(name)]


def check_rule(base: Method, rule: Acceptance, methods: Mapping[str, Method]) -> None:
    """Check that a method can have an acceptance rule.

    Args:
        base: the method.
        rule: the rule.
        methods: the table.

    Raises:
        RecipeError: the rule is for chains and the drafts are trees, or the drafter cannot serve it, or it reads a
            model or a head that the method lacks.
    """
    if rule.needs_head not in ("", base.head):
        owner = next(m.name for m in methods.values() if m.acceptance == rule.__name__)
        raise RecipeError(f"acceptance {rule.__name__} reads what {base.name} has not; write base = '{owner}'")
    if rule.needs_chain and base.topology not in ("chain", "none"):
        raise RecipeError(f"acceptance {rule.__name__} is for chains, and the topology is a {base.topology}; use match")
    recipe = Recipe(name=base.name, drafter=base.drafter, verify=(), acceptance=rule.__name__)
    RunnableMethod(recipe, load_drafter(base.drafter), rule)
