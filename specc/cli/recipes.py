"""The verb `recipes`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specc.cli import console
from specc.cli.arguments import JsonOption, OptionalStr, examples

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from specc.recipes import Method

EXAMPLES = examples("specc recipes", "specc recipes prompt-lookup", "specc recipes --json")
NAME = "One recipe, with its parameters."


def command(
    name: Annotated[OptionalStr, typer.Argument(metavar="NAME", help=NAME, show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that can be compiled.

    Shows when to try each recipe, what it is, and what it needs. With a name, it shows the paper and the parameters.
    """
    from specc.recipes import METHODS, method

    methods = [method(name)] if name else list(METHODS.values())
    if json:
        console.emit([method_json(each) for each in methods])
    else:
        console.out().print(method_table(methods[0]) if name else methods_table(methods))


def method_json(method: Method) -> dict[str, Any]:
    """Return a method as plain data."""
    return {
        "name": method.name,
        "title": method.title,
        "try_when": method.try_when,
        "paper": method.paper,
        "drafter": method.drafter,
        "acceptance": method.acceptance,
        "topology": method.topology,
        "lossless": method.lossless,
        "needs": list(method.needs),
        "parameters": [
            {"name": name, "default": parameter.default, "help": parameter.help}
            for name, parameter in method.parameters.items()
        ],
    }


def methods_table(methods: Iterable[Method]) -> RenderableType:
    """Draw all methods, grouped by what they need: when to try each one, and what it is."""
    groups: dict[tuple[str, ...], list[Method]] = {}
    for method in methods:
        groups.setdefault(method.needs, []).append(method)
    parts: list[RenderableType | str] = []
    for needs, group in sorted(groups.items(), key=lambda item: len(item[0])):
        parts += [console.text(_needs(needs), "bold"), _group_table(group), ""]
    hint = "specc recipes NAME shows a recipe's paper and parameters. specc tune measures which one is fastest here."
    return console.stack(*parts, console.text(hint, "dim"))


def _needs(needs: Iterable[str]) -> str:
    """Write what a group of recipes needs."""
    options = " and ".join(f"--{need}" for need in needs)
    return f"Recipes that need {options}:" if options else "Recipes that need nothing but the model:"


def _group_table(methods: Iterable[Method]) -> Table:
    """Draw a row for each method of a group."""
    table = console.table("recipe", "try it when", "method, topology")
    for method in methods:
        title = console.text(method.title).append(f"\n{method.topology}, {method.acceptance}", "dim")
        if not method.lossless:
            title.append(", not lossless", "dim")
        table.add_row(method.name, method.try_when, title)
        table.add_section()
    return table


def method_table(method: Method) -> RenderableType:
    """Draw one method with its parameters."""
    facts = console.facts()
    for title, value in (
        ("title", method.title),
        ("try it when", method.try_when),
        ("paper", method.paper),
        ("drafter", method.drafter),
        ("acceptance", method.acceptance),
        ("topology", method.topology),
        ("lossless", console.yes_or_no(method.lossless)),
        ("needs", ", ".join(method.needs) or "nothing beside the model"),
    ):
        facts.add_row(title, console.text(value or "-"))
    if not method.parameters:
        return facts
    parameters = console.table("parameter", ("default", "right"), "")
    for name, parameter in method.parameters.items():
        default = "-" if parameter.default is None else str(parameter.default)
        parameters.add_row(name, default, console.text(parameter.help))
    return console.stack(facts, "", parameters)
