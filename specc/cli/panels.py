"""Help texts of verbs with many options: the options stand in panels, each with a title."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

OTHERS = "Options"


class PanelCommand(TyperCommand):
    """A verb whose help text groups the options by their `rich_help_panel`, in plain text.

    typer itself draws panels with rich, which cuts the names of options on a narrow terminal.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels in the order of their first options. Options without a panel come last."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                panels.setdefault(_panel(parameter), []).append(record)
        for title in sorted(panels, key=lambda title: title == OTHERS):
            with formatter.section(title):
                formatter.write_dl(panels[title])


def _panel(parameter: Any) -> str:
    """Return the title under which a parameter stands."""
    if isinstance(parameter, TyperArgument):
        return parameter.rich_help_panel or "Arguments"
    if isinstance(parameter, TyperOption):
        return parameter.rich_help_panel or OTHERS
    return OTHERS
