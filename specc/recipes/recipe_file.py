"""Recipe files: a user's own point on the axes, as TOML. It names words of the table and numbers, and never code."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from specc.bounded_read import decode_text, reason_of
from specc.recipes.axes import LENGTHS, RULES, TOPOLOGIES, check_rule, drafters, lengths_for, rule_axis, topologies
from specc.recipes.blocks import length_arguments, rule_parameters
from specc.recipes.engines import default_engines
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values
from specc.recipes.literals import MOST_BITS, check_digits
from specc.runtime.acceptance import Acceptance, Keeps
from specc.runtime.errors import RecipeError, TreeError, nearest, printable
from specc.runtime.method import load_acceptance

SUFFIX = ".toml"
KEYS = ("name", "title", "base", "drafter", "topology", "length", "acceptance", "parameters")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LENGTH_PARAMETERS = frozenset(name for axis in LENGTHS.values() for name in axis.parameters or ())
EVERY = "all"  # `specc bench --recipe all` means every recipe of a bundle
MOST_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Point:
    """A recipe of a user: the recipe that its file names as the base, and what the file changes.

    Attributes:
        base: the recipe whose blocks and drafter are taken.
        length: a word of `LENGTHS`.
        rule: the acceptance rule.
        parameters: all parameters, with the file's values as defaults.
    """

    base: Method
    length: str
    rule: Acceptance
    parameters: Mapping[str, Parameter]


def read_recipe(path: Path, methods: Mapping[str, Method]) -> Method:
    """Read a recipe file, and return it as a method.

    Args:
        path: the file.
        methods: the table, from which the file takes its words.

    Raises:
        RecipeError: the file cannot be read, is not TOML, or says something that no method can be.
    """
    data = _read(path)
    for key, value in data.items():
        check_digits(f"{path}: {printable(key)}", value)
        if key not in KEYS:
            is_parameter = any(key in m.parameters for m in methods.values())
            remedy = "write it below a line [parameters]" if is_parameter else nearest(key, KEYS)
            raise RecipeError(f"{path}: no key {key!r}; {remedy}")
        kind = dict if key == "parameters" else str
        if not isinstance(value, kind):
            raise RecipeError(f"{path}: {key} is {value!r}; give {'a table' if kind is dict else 'a text'}")
    name, title = data.get("name", path.stem), data.get("title", f"The recipe of {printable(path.name)}")
    if not title.isprintable():
        raise RecipeError(f"{path}: title is {title!r}; write one line, without control characters")
    if not title.strip():
        raise RecipeError(f"{path}: title is {title!r}; write one line of text, or leave it out")
    if name == EVERY:
        raise RecipeError(f"{path}: {name!r} means every recipe in 'specc bench --recipe'; give another name = '…'")
    if not NAME.fullmatch(name) or name in methods:
        reason = "is a recipe of the table" if name in methods else "is not a name of small letters, digits and hyphens"
        raise RecipeError(f"{path}: {name!r} {reason}; give another name = '…'")
    try:
        point = _point(data, methods)
        check_rule(point.base, point.rule, methods)
        own = _method(point, name, title, says_lossy="title" in data and "lossy" in title)
        default_engines(own)  # So that a value out of range is refused by the name of the file.
        return own
    except (RecipeError, TreeError) as e:
        raise RecipeError(f"{path}: {e}") from e


def _read(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises RecipeError if it cannot be read, is too long, or is not TOML."""
    if os.path.exists(path) and not (path.is_file() or path.is_dir()):  # A pipe would be waited for.
        raise RecipeError(f"{path} is not a regular file; name a recipe of the table, or a file that exists")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as e:  # ValueError: the name has a NUL.
        raise RecipeError(
            f"{printable(str(path))}: {reason_of(e)}; name a recipe of the table, or a file that exists"
        ) from e
    if len(content) > MOST_BYTES:
        raise RecipeError(f"{path} has more than {MOST_BYTES} bytes; a recipe file has some lines of TOML")
    try:
        return tomllib.loads(decode_text(content))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise RecipeError(
            f"{path} is not TOML: {str(e).splitlines()[0]}; write lines such as: base = 'layer-skip'"
        ) from e
    except ValueError as e:  # int() refuses thousands of digits.
        raise RecipeError(f"{path} has a number of thousands of digits; write one of {MOST_BITS} bits") from e


def _point(data: Mapping[str, Any], methods: Mapping[str, Method]) -> Point:
    """Find the recipe that a file starts from, and put the file's words in the place of its own."""
    base = _base(data, methods)
    rule = load_acceptance(_word("acceptance", data.get("acceptance", base.acceptance), RULES))
    length = _word("length", data.get("length", base.length), LENGTHS)
    policy = LENGTHS[length].parameters
    parameters = dict(base.parameters)
    if length != base.length:
        words = lengths_for(base)
        if policy is None or length not in words:
            raise RecipeError(f"length is {length!r}; drafter {base.drafter} takes {', '.join(words)}")
        parameters = {name: p for name, p in base.parameters.items() if name not in LENGTH_PARAMETERS} | dict(policy)
    if rule.__name__ != base.acceptance:
        own = load_acceptance(base.acceptance).ranges
        parameters = {name: p for name, p in parameters.items() if name not in own} | rule_axis(rule)
    for name, value in data.get("parameters", {}).items():
        if name not in parameters:
            raise RecipeError(f"no parameter {name!r}; {nearest(name, parameters)}")
        if "length" in data and policy is not None and _contradicts(policy, name, value):
            raise RecipeError(f"length is {length!r}, and {name} {value!r} is another length; leave out one of the two")
        parameters[name] = replace(parameters[name], default=value)
    return Point(base=base, length=length, rule=rule, parameters=parameters)


def _contradicts(policy: Mapping[str, Parameter], name: str, value: Any) -> bool:
    """Tell whether a parameter ends drafts in another way than the parameters of a length do.

    Args:
        policy: the parameters of the length, by name. One whose default is a text has this value alone.
        name: the parameter.
        value: its value.
    """
    if name not in policy:
        return name in LENGTH_PARAMETERS
    default = policy[name].default
    return isinstance(default, str) and value != default


def _base(data: Mapping[str, Any], methods: Mapping[str, Method]) -> Method:
    """Return the recipe that a file names as its base, or the one that has the drafter and the topology of the file.

    A drafter that is also the name of a recipe means that recipe.

    Raises:
        RecipeError: a word is not one of the table, or two words contradict each other, or several recipes have them.
    """
    if "base" in data:
        base = methods[_word("base", data["base"], methods)]
        for axis, own, words in (("drafter", base.drafter, drafters(methods)), ("topology", base.topology, TOPOLOGIES)):
            if _word(axis, data.get(axis, own), words) != own:
                raise RecipeError(
                    f"{axis} is {data[axis]!r}, and base {base.name} has {own!r}; leave out one of the two"
                )
        return base
    if "drafter" not in data:
        raise RecipeError("it names no drafter and no base; write one, such as: base = 'layer-skip'")
    drafter = _word("drafter", data["drafter"], drafters(methods))
    shapes = topologies(methods, drafter)
    topology = data.get("topology")
    if topology is not None and _word("topology", topology, TOPOLOGIES) not in shapes:
        others = dict.fromkeys(m.drafter for m in methods.values() if m.topology == topology)
        raise RecipeError(
            f"topology is {topology!r}, and drafter {drafter} has {', '.join(shapes)}; "
            f"the drafters of a {topology} are {', '.join(others)}"
        )
    choices = [m for m in drafters(methods)[drafter] if topology in (None, m.topology)]
    named = [m for m in choices if m.name == drafter] or choices
    if len(named) > 1:
        names = ", ".join(m.name for m in named)
        raise RecipeError(f"drafter {drafter} is that of {names}; write base = '{named[0].name}', or another of them")
    return named[0]


def _word(axis: str, word: str, words: Iterable[str]) -> str:
    """Return a word if it is one of an axis. Raises RecipeError, which names the nearest."""
    if word not in words:
        raise RecipeError(f"{axis} is {word!r}; {nearest(word, words)}")
    return word


def _method(point: Point, name: str, title: str, *, says_lossy: bool) -> Method:
    """Return a point as a method. A title that does not say that the recipe is lossy gets the word."""
    base, rule = point.base, point.rule
    lossless = rule.keeps != Keeps.NOTHING and (
        base.lossless or load_acceptance(base.acceptance).keeps == Keeps.NOTHING
    )
    return replace(
        base,
        name=name,
        title=title if lossless or says_lossy else f"{title} (lossy)",
        about=(
            f"It starts from the recipe {base.name}, whose blocks and parameters it has. "
            f"Its length is {point.length}, and its rule is {rule.__name__}."
        ),
        departures=(),
        length=point.length,
        acceptance=rule.__name__,
        plan=partial(_plan, point),
        parameters=point.parameters,
        lossless=lossless,
        by_default=False,
    )


def _plan(point: Point, values: Values, facts: Facts) -> MethodBlocks:
    """Plan the blocks of the base, and give the drafter its length policy and the rule its parameters."""
    base = point.base
    has_length, has_rule = point.length != base.length, point.rule.__name__ != base.acceptance  # of its own
    lengths = LENGTH_PARAMETERS if has_length else frozenset()
    # A parameter of the new rule may have the name of one of the old rule, and another range.
    others = lengths | set(load_acceptance(base.acceptance).ranges if has_rule else ())
    names = base.parameters.keys() - others
    blocks = base.plan(base.settle({name: v for name, v in values.items() if name in names}), facts)
    arguments, rule = dict(blocks.arguments), blocks.rule
    if has_length:
        arguments = {name: v for name, v in arguments.items() if name not in lengths} | length_arguments(values)
    if has_rule:
        rule = rule_parameters(point.rule.__name__, values)
    return replace(blocks, arguments=arguments, rule=rule)
