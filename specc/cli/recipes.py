"""The verb `recipes`: the recipes that can be compiled, in a list, and one in detail."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from specc.cli import console
from specc.cli.arguments import JsonOption, examples, flag
from specc.runtime.errors import RecipeError, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from specc.recipes import Method

EXAMPLES = examples("specc recipes", "specc recipes show prompt-lookup", "specc recipes --axes")
SHOW_EXAMPLES = examples("specc recipes show cascade", "specc recipes show my-recipe.toml --json")
AUTHORS = re.compile(r"[A-Z][\w-]*(?: et al\.| & [A-Z]\w*)? \d{4}")  # Kim et al. 2023
AXES = "List the words that a recipe file may choose, and what goes with each, instead of the recipes."
NAME = "A recipe of the list, or a file FILE.toml with a recipe of your own."


class Recipes(TyperGroup):
    """A group of commands in which a word that is not a command is the name of a recipe to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the words begin with, or `show`."""
        words = args if args[0] in self.commands else ["show", *args]
        return super().resolve_command(ctx, words)


app = typer.Typer(
    cls=Recipes,
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=EXAMPLES,
)


@app.callback()
def list_recipes(
    context: typer.Context, axes: Annotated[bool, flag("--axes", AXES)] = False, json: JsonOption = False
) -> None:
    """List the recipes that can be compiled, or show one of them.

    The list is grouped by where the drafts come from. It names the paper, the drafter, the topology, the length of a
    draft, the acceptance rule, what a recipe needs, and its engines.
    """
    if context.invoked_subcommand and axes:
        raise RecipeError("--axes lists the words of all axes; leave it out, or leave out the recipe")
    if context.invoked_subcommand:
        return
    from specc.recipes import METHODS

    if axes:
        show_axes(METHODS, json)
    elif json:
        console.emit([method_json(each) for each in METHODS.values()])
    else:
        console.show(methods_table(METHODS.values()))


@app.command("show", epilog=SHOW_EXAMPLES)
def show_recipe(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help=NAME)], json: JsonOption = False
) -> None:
    """Show one recipe: what it does, its parameters, its engines, and where it departs from the paper.

    A parameter has its default and the value of the paper. The engines are those of the defaults.
    """
    from specc.recipes import method

    if json or (context.parent and context.parent.params["json"]):  # specc recipes --json NAME
        console.emit(method_json(method(name)))
    else:
        console.show(method_table(method(name)))


def method_json(method: Method) -> dict[str, Any]:
    """Return a method as plain data."""
    from specc.recipes.axes import caches
    from specc.recipes.engines import default_engines

    return {
        "name": method.name,
        "title": method.title,
        "family": method.family.value,
        "try_when": method.try_when,
        "about": method.about,
        "paper": method.paper,
        "departures": list(method.departures),
        "drafter": method.drafter,
        "topology": method.topology,
        "length": method.length,
        "schedule": method.schedule,
        "caches": list(caches(method)),
        "acceptance": method.acceptance,
        "lossless": method.lossless,
        "needs": list(method.needs),
        "by_default": method.by_default,
        "parameters": [
            {"name": name, "default": parameter.default, "help": parameter.help, "paper": parameter.paper}
            for name, parameter in method.parameters.items()
        ],
        "engines": [
            {"role": e.role, "model": e.model, "topology": e.topology, "slots": e.slots}
            for e in default_engines(method)
        ],
    }


def methods_table(methods: Iterable[Method]) -> RenderableType:
    """Draw all methods, grouped by family."""
    from specc.recipes.entry import Family

    groups: dict[Family, list[Method]] = {family: [] for family in Family}
    for method in methods:
        groups[method.family].append(method)
    parts: list[RenderableType | str] = []
    for family, group in groups.items():
        if group:
            parts += [console.text(family.value, "bold"), _group_table(group), ""]
    hint = "specc recipes show NAME has the details. specc tune measures which recipe is fastest here."
    return console.stack(*parts, console.text(hint, "dim"))


def show_axes(methods: Mapping[str, Method], json: bool) -> None:
    """Print the words of the axes, with what goes with each, as a table or as JSON."""
    from specc.recipes.axis_words import axis_words

    axes = axis_words(methods)
    if json:
        console.emit(
            {axis: [{"name": w.name, "help": w.help, **w.goes_with} for w in words] for axis, words in axes.items()}
        )
        return
    parts: list[RenderableType | str] = []
    for axis, words in axes.items():
        table = console.table("word", "")
        for word in words:
            lines = [word.help, *(f"{kind}: {', '.join(names)}" for kind, names in word.goes_with.items() if names)]
            table.add_row(word.name, console.text("\n".join(lines)))
            table.add_section()
        parts += [console.text(axis, "bold"), table, ""]
    hint = "A recipe file chooses a drafter or a base, a topology, a length and a rule: docs/recipes.md."
    console.show(console.stack(*parts, console.text(hint, "dim")))


def _group_table(methods: Iterable[Method]) -> Table:
    """Draw a row for each method of a group."""
    from specc.recipes.engines import default_engines

    table = console.table(
        ("recipe, paper", "fold"), "drafter, topology", "length, acceptance", ("keeps, needs", "whole"), "engines"
    )
    for method in methods:
        heads = (method.head, method.optional_head)
        counts = Counter("head" if engine.model in heads else engine.model for engine in default_engines(method))
        authors = ",\n".join(AUTHORS.findall(method.paper))
        table.add_row(
            console.text(method.name).append(f"\n{authors}" if authors else "", "dim"),
            f"{method.drafter}\n{method.topology}",
            f"{method.length}\n{method.acceptance}",
            "\n".join(["lossless" if method.lossless else "lossy", *(f"--{need}" for need in method.needs)]),
            "\n".join(f"{count} {model}" for model, count in counts.items()),
        )
        table.add_section()
    return table


def method_table(method: Method) -> RenderableType:
    """Draw one method: what it does, its facts, parameters and engines, and where it departs from the paper."""
    from specc.recipes.axes import caches

    facts = console.facts()
    for title, value in (
        ("title", method.title),
        ("what it does", method.about),
        ("try it when", method.try_when),
        ("paper", method.paper),
        ("family", method.family.value),
        ("drafter", method.drafter),
        ("topology", method.topology),
        ("length", method.length),
        ("schedule", method.schedule),
        ("caches of the draft", ", ".join(caches(method)) or "none"),
        ("acceptance", _acceptance(method.acceptance)),
        ("lossless", console.yes_or_no(method.lossless)),
        ("needs", ", ".join(f"--{need}" for need in method.needs) or "nothing beside the model"),
        *([("train its head", method.training)] if method.training else []),
        ("departures", "\n".join(method.departures) or "none"),
    ):
        facts.add_row(title, console.text(value or "-"))
    parts: list[RenderableType | str] = [facts, "", _engines_table(method)]
    if method.parameters:
        parts += ["", _parameters_table(method)]
    return console.stack(*parts)


def _acceptance(name: str) -> str:
    """Name an acceptance rule, and say what it is at temperature 0 if it is another one then."""
    from specc.runtime.method import load_acceptance

    return f"{name}; at temperature 0 it is match" if load_acceptance(name).matches_if_greedy else name


def _parameters_table(method: Method) -> Table:
    """Draw a row for each parameter."""
    table = console.table("parameter", ("default", "fold"), "paper", "")
    for name, parameter in method.parameters.items():
        default = "-" if parameter.default is None else printable(str(parameter.default))
        table.add_row(name, default, parameter.paper or "-", console.text(parameter.help))
    return table


def _engines_table(method: Method) -> Table:
    """Draw a row for each engine that the defaults compile."""
    from specc.recipes.engines import default_engines

    table = console.table("engine", "model", "topology", ("slots", "right"))
    for engine in default_engines(method):
        table.add_row(engine.role, engine.model, engine.topology, str(engine.slots))
    return table
