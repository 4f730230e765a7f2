"""The code of a recipe: the drafter and the acceptance rule that it names, imported on demand."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .acceptance import Acceptance, Keeps, with_parameters
from .block import STATE, Block
from .drafters import Drafter
from .engine import Engine
from .errors import CODE_ERRORS, RecipeError, SpeccError, TreeError, first_line, nearest
from .recipe import Recipe
from .sampling import Sampling

# Arguments of drafters that a rule can ask for, and what they mean.
OPTIONS = {
    "sample": "samples",
    "keep_logits": "keeps its logits",
    "keep_difference": "keeps the difference of two models' logits",
    "replacement": "draws siblings with replacement",
}


# The versions of the algorithms that this runtime has. A name that is not here has version 1.
VERSIONS: Mapping[str, int] = {}


class DrafterClass(Protocol):
    """A class of drafters. Its attributes are those of `Drafter`."""

    takes_length: bool
    suggests: bool
    keeps_all_logits: bool
    files: tuple[str, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Drafter:
        """Make a drafter from its engines and parameters."""


@dataclass(frozen=True)
class RunnableMethod:
    """A recipe's method as code: the class of its drafter, and an acceptance rule that this drafter can serve.

    The constructor raises RecipeError if the rule needs a drafter that samples, and this one does not.
    """

    recipe: Recipe
    drafter: DrafterClass
    accept: Acceptance

    def __post_init__(self) -> None:
        for option in self.drafter_options:
            if option not in inspect.signature(self.drafter).parameters:
                raise RecipeError(
                    f"acceptance {self.accept.__name__!r} needs a drafter that {OPTIONS[option]}, and the drafter of "
                    f"recipe {self.recipe.name} does not; use match"
                )
        if self.accept.needs_all_logits and not self.drafter.keeps_all_logits:
            raise RecipeError(
                f"acceptance {self.accept.__name__!r} needs a drafter that keeps the logits after every slot, and the "
                f"drafter of recipe {self.recipe.name} does not; use match"
            )

    @property
    def drafter_options(self) -> tuple[str, ...]:
        """The arguments of the drafter that the rule wants to be true."""
        wishes = {
            "sample": self.accept.needs_draft_probs,
            "keep_logits": self.accept.needs_draft_logits,
            "keep_difference": self.accept.needs_draft_difference,
            "replacement": self.accept.needs_replacement,
        }
        return tuple(name for name, wish in wishes.items() if wish)

    @property
    def key(self) -> tuple[str, ...]:
        """The recipe's name and what the rule wants of the drafter: methods with one key can share a drafter."""
        return self.recipe.name, *self.drafter_options

    def is_lossless(self, sampling: Sampling) -> bool:
        """Tell whether the answer to a request has the distribution of plain decoding, with this method's rule."""
        rule_loses = load_acceptance(self.recipe.acceptance).keeps == Keeps.NOTHING  # Else the target itself differs.
        keeps = self.accept.keeps != Keeps.NOTHING or self.is_idle(sampling)
        return keeps and (self.recipe.lossless or rule_loses)

    def is_idle(self, sampling: Sampling) -> bool:
        """Tell whether a lossy rule is `match` for a request, so that the rule changes nothing."""
        return self.accept.keeps == Keeps.NOTHING and self.accept.matches_if_greedy and sampling.greedy

    def keeps_tokens(self, sampling: Sampling) -> bool:
        """Tell whether the tokens of a request are those of plain decoding, whatever is drafted."""
        is_greedy_match = sampling.greedy and (self.accept.keeps == Keeps.DISTRIBUTION or self.is_idle(sampling))
        return self.accept.keeps == Keeps.TOKENS or is_greedy_match

    def check_engines(self, verifiers: Sequence[Block], sampling: Sampling) -> None:
        """Refuse a rule that the engines of the recipe cannot serve, so that a request fails before it gives a token.

        Args:
            verifiers: the blocks that verify its drafts.
            sampling: that of the request.

        Raises:
            RecipeError: the rule is for chains and drafts are trees, or it reads what no engine gives.
        """
        accept, name = self.accept, self.recipe.name
        is_match = accept.matches_if_greedy and sampling.greedy
        if accept.needs_chain and not is_match and not all(map(_verifies_chains, verifiers)):
            raise RecipeError(
                f"acceptance {accept.__name__!r} is for chains, and recipe {name} drafts trees; use match, or a recipe "
                "that drafts chains"
            )
        if accept.needs_head and not any(f"{STATE}{accept.needs_head}" in block.outputs for block in verifiers):
            raise RecipeError(
                f"acceptance {accept.__name__!r} reads a head of architecture {accept.needs_head}, and recipe {name} "
                "has none; compile a recipe of this rule with --head, or use match"
            )

    def make_drafter(self, engines: Mapping[str, Engine], file: Callable[[str], Path] = Path) -> Drafter:
        """Make the drafter over `engines`, which are keyed as `recipe.engines` is.

        Args:
            engines: the engines.
            file: returns the path of a file of the bundle by its name.

        Raises:
            RecipeError: the drafter does not take these engines or parameters, which come from a manifest.
        """
        options = dict.fromkeys(self.drafter_options, True)
        try:
            parameters = dict(self.recipe.parameters)
            for name in self.drafter.files:
                if parameters.get(name) is not None:
                    parameters[name] = file(str(parameters[name]))
            return self.drafter(**engines, **parameters, **options)
        except (RecipeError, TreeError) as e:
            raise RecipeError(f"recipe {self.recipe.name}: {e}") from e
        except SpeccError:
            raise
        except CODE_ERRORS as e:
            raise RecipeError(f"recipe {self.recipe.name}: {self.failure(e)}") from e

    def failure(self, error: BaseException) -> RecipeError:
        """Return the error that says what Python raised while the drafter worked: one of `CODE_ERRORS`.

        A manifest may give a drafter any engine and any parameter, and a stranger may have written the manifest.
        """
        return RecipeError(
            f"the drafter {self.recipe.drafter} does not go with its engines and parameters "
            f"({type(error).__name__}: {first_line(error)}); decode by recipe plain, or compile the bundle again"
        )


def _verifies_chains(block: Block) -> bool:
    """Tell whether all that a block can verify is chains."""
    return block.tree is not None and block.tree.is_chain


def load_method(recipe: Recipe, acceptance: str | Acceptance | None = None) -> RunnableMethod:
    """Import a recipe's drafter and its acceptance rule.

    Args:
        recipe: the recipe.
        acceptance: a rule or its name; None is the recipe's own rule.

    Raises:
        RecipeError: the drafter or the rule is not there or has another version, or the drafter cannot serve the rule.
    """
    _check_version(recipe, "drafter", recipe.drafter, recipe.drafter_version)
    if acceptance is None:
        _check_version(recipe, "acceptance rule", recipe.acceptance, recipe.acceptance_version)
    accept = recipe.acceptance if acceptance is None else acceptance
    if isinstance(accept, str):
        accept = load_acceptance(accept)
        if acceptance is None:
            accept = with_parameters(accept, recipe.rule_parameters)
    elif not isinstance(accept, Acceptance):
        raise RecipeError(f"{accept!r} is not an acceptance rule; mark it with specc.runtime.acceptance.rule")
    return RunnableMethod(recipe, load_drafter(recipe.drafter), accept)


def _check_version(recipe: Recipe, kind: str, name: str, version: int) -> None:
    """Check that this runtime has the version of an algorithm that a recipe names.

    Raises:
        RecipeError: it has another one.
    """
    own = VERSIONS.get(name, 1)
    if version != own:
        raise RecipeError(
            f"recipe {recipe.name} needs version {version} of the {kind} {name}, and this specc has version {own}; "
            "choose another recipe, such as plain, or install the specc that compiled the bundle"
        )


def load_drafter(name: str) -> DrafterClass:
    """Import the class in `drafters/` that has this name: prompt-lookup is PromptLookup in prompt_lookup.py.

    Raises:
        RecipeError: there is no such drafter.
    """
    drafter: DrafterClass | None = _load(
        "drafters", name.replace("-", "_"), "".join(p.capitalize() for p in re.split("[-_]", name))
    )
    if drafter is None:
        names = [file.replace("_", "-") for file in _files("drafters")]
        raise RecipeError(f"no drafter {name!r}; {nearest(name, names, 'upgrade specc, or compile the bundle again')}")
    return drafter


def load_acceptance(name: str) -> Acceptance:
    """Import the function in `acceptance/` that has this name.

    Raises:
        RecipeError: there is no such rule.
    """
    acceptance: Acceptance | None = _load("acceptance", name, name)
    if acceptance is None:
        names = _files("acceptance")
        remedy = f"there are {', '.join(names)}; upgrade specc if a bundle asks for another"
        raise RecipeError(f"no acceptance rule {name!r}; {nearest(name, names, remedy)}")
    return acceptance


def _load(folder: str, file: str, attribute: str) -> Any:
    """Import `attribute` from a file of `folder`; None if there is no such file. The name may come from a bundle."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", file):
        return None
    module = f"{__package__}.{folder}.{file}"
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        return None


def _files(folder: str) -> list[str]:
    """Return the names of the files of `folder`, without their ending."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / folder)]))
