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

    Shows what each recipe is, where it was published, and what it needs. With a name, it shows the parameters too.
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


def methods_table(methods: Iterable[Method]) -> Table:
    """Draw all methods: what each one is, where it was published, how it drafts and what it needs."""
    table = console.table("recipe", "method and paper", "topology, acceptance")
    for method in methods:
        title = console.text(method.title)
        if method.paper:
            title.append(f"\n{method.paper}", "dim")
        lines = [f"{method.topology}, {method.acceptance}", "lossless" if method.lossless else "not lossless"]
        if method.drafter != method.name:
            lines.append(f"drafter {method.drafter}")
        lines += [f"needs {need}" for need in method.needs]
        table.add_row(method.name, title, "\n".join(lines))
        table.add_section()
    return table


def method_table(method: Method) -> RenderableType:
    """Draw one method with its parameters."""
    facts = console.facts()
    for title, value in (
        ("title", method.title),
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
