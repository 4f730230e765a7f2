"""A table whose words stay whole: columns of free text wrap, and a table is wider than the terminal if it must be."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

LONGEST_WORD = 32  # Characters. Names of recipes and parameters are shorter. Longer words, such as paths, may break.


class WholeTable(Table):
    """A table that makes room for names by wrapping texts between words.

    rich itself breaks words of one column while another one could wrap between words, and cuts what may not wrap.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give each column a width, and draw the table."""
        gaps = len(self.columns) - 1
        frame = gaps * (self.padding[1] + self.padding[3] + (1 if self.box else 0))
        needs = [_needs(console, options, column) for column in self.columns]
        widths = column_widths(needs, options.max_width - frame)
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        self.width = sum(widths) + frame  # Otherwise rich would take from all columns if the terminal is narrower.
        yield from super().__rich_console__(console, options)


def column_widths(needs: list[Measurement], room: int) -> list[int]:
    """Return a width for each column: the widest ones shrink first, but no column below what its words need.

    Args:
        needs: by column, the width below which a word would break, and that of its longest line.
        room: the width of all columns together, which is exceeded if the words need more.
    """
    widths = [max(1, need.maximum) for need in needs]
    while sum(widths) > room:
        loose = [i for i, need in enumerate(needs) if widths[i] > max(1, need.minimum)]
        if not loose:
            break
        widths[max(loose, key=widths.__getitem__)] -= 1
    return widths


def _needs(console: Console, options: ConsoleOptions, column: Column) -> Measurement:
    """Measure the longest word and the longest line of a column."""
    cells: list[RenderableType] = [column.header, *column.cells] if column.header else list(column.cells)
    any_width = options.update_width(1 << 12)
    sizes = [Measurement.get(console, any_width, cell) for cell in cells]
    longest = max((size.maximum for size in sizes), default=1)
    if column.no_wrap:
        return Measurement(longest, longest)
    return Measurement(min(LONGEST_WORD, max((size.minimum for size in sizes), default=1)), longest)
