"""The words that the tables of several verbs share, each with one meaning, and one line that says it.

JSON and Python call the figures by the names that vLLM has: `mean_acceptance_length` and `draft_acceptance_rate`.
"""

from __future__ import annotations

LENGTH_TITLE = "length"  # The title of a column. The whole name does not fit in 80 characters beside the other columns.
SLOTS_LINE = "slots: tokens that one step computes"
LENGTH_LINE = "length: mean acceptance length, the tokens of a step that had a draft"
