"""Refuse options of `specc train` that contradict each other, or that the training of the recipe does not read."""

from __future__ import annotations

import typer

from specc.runtime.errors import HeadError

EXCLUSIVE = (  # By the names of the verb's parameters. The training reads only one of each two.
    ("minutes", "updates"),
    ("head", "draft_vocab_size"),
    ("assistant_model", "draft_layers"),
    ("assistant_model", "loops"),
    ("assistant_model", "rank"),
    ("answers", "prompts"),
)


def check_exclusive(context: typer.Context) -> None:
    """Refuse two options of which a training would read one. Raises HeadError."""
    options = _given(context)
    for one, other in EXCLUSIVE:
        if one in options and other in options:
            raise HeadError(f"{options[one]} and {options[other]} exclude each other; give one of them")


def check_read(context: typer.Context, recipe: str, with_model: bool) -> None:
    """Refuse options that a training does not read. This imports torch.

    Args:
        context: of the verb. Options that the user left out are not refused.
        recipe: the recipe.
        with_model: whether the model itself is trained, too.

    Raises:
        HeadError: nothing trains the recipe, or its training does not read an option.
    """
    from specc.training.jobs import options_read, recipes_reading

    read = options_read(recipe, with_model)
    training = f"{recipe} with --with-model" if with_model else recipe
    for parameter, name in _given(context).items():
        others = recipes_reading(parameter)
        if others and parameter not in read:
            raise HeadError(
                f"the training of {training} does not read {name}; leave it out, or give a --recipe that reads it, "
                f"such as {others[0]}"
            )


def _given(context: typer.Context) -> dict[str, str]:
    """Return the options that the user gave, by the names of their parameters."""
    names = {one.name: one.opts[-1] for one in context.command.params if one.name is not None}
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name: names[name] for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
