"""The method that drafts by a trained layer with two experts."""

from __future__ import annotations

from functools import partial

from specc.recipes.entry import Family, Method
from specc.recipes.heads import NODES, plan_tree, stacked_blocks

JAKIRO = Method(
    name="jakiro",
    title="Jakiro: EAGLE's layer with two experts, on dynamic trees",
    try_when="A Jakiro head was trained for the model, and a step with 12 slots costs little more than one slot.",
    about=(
        "A trained layer drafts, as in eagle, with two experts in the place of its MLP. The likeliest token comes from "
        "the expert that a gate prefers, and its siblings from the other one. So a tree grows, as in eagle2. The last "
        "call also guesses one token more, so a tree takes one call less than it has levels. The model verifies it in "
        "one step."
    ),
    paper="Jakiro, Huang et al. 2025, arXiv:2502.06282",
    departures=(
        "Each expert makes tokens of its own in all calls; the authors' code adds both up in calls before the last.",
        "The other expert learns what the text has where the first expert's token is wrong.",
        "The tokens of the last level are one guess for all branches.",
        "Trees have as many nodes as pay; the paper's always have their full size.",
    ),
    family=Family.HEADS,
    drafter="jakiro",
    topology="dynamic tree",
    length="budget",
    plan=partial(plan_tree, "jakiro", blocks=stacked_blocks),
    parameters=NODES,
    needs=("head",),
    head="jakiro",
)
