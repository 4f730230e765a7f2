"""Checks of a head from a user's files, before anything of the sizes that they name is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from specc.heads.architectures import build_head
from specc.heads.config_file import CONFIG, shown
from specc.heads.head import Head, HeadConfig
from specc.runtime.errors import CODE_ERRORS, HeadError, first_line, nearest

MOST_SIZE = 1 << 24  # numbers of a state, tokens, and columns of a matrix
MOST_COUNT = 1 << 10  # layers, guesses, heads of attention
SIZE, SIZE_OR_NONE = (1, MOST_SIZE), (0, MOST_SIZE)
COUNT, COUNT_OR_NONE = (1, MOST_COUNT), (0, MOST_COUNT)
SWITCH, KIND = (0, 1), (0, 2)
# The whole numbers among the settings of all architectures, with the least and the largest value of each.
WHOLE: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("head_size", "expert_size", "rank", "latent", "recurrent"), SIZE),
    **dict.fromkeys(("mlp_size", "hidden"), SIZE_OR_NONE),
    **dict.fromkeys(("heads", "key_heads", "depths", "guesses", "parts", "mlp_layers", "skipped"), COUNT),
    **dict.fromkeys(("layers", "blocks", "first_skipped", "read_layer"), COUNT_OR_NONE),
    **dict.fromkeys(("bias", "head_norm", "residual_norm", "final_norm", "input_norm", "token_norm"), SWITCH),
    **dict.fromkeys(("state_norm", "norm", "token", "own_product", "fusion_bias"), SWITCH),
    **dict.fromkeys(("causal", "cosine", "shared", "trigrams"), SWITCH),
    **dict.fromkeys(("tap_norm", "next_state"), KIND),
    "mask_token": (-1, MOST_SIZE),
}
# The others are greater than 0, and at most so much.
FRACTIONS: Mapping[str, float] = {"eps": 1.0, "rope_theta": 1e12}


def check_config(config: HeadConfig, file: Path, remedy: str) -> None:
    """Check all numbers of a head's configuration.

    Args:
        config: the configuration.
        file: where it is from, for messages.
        remedy: how messages end.

    Raises:
        HeadError: a number is out of range, two numbers do not fit each other, or a setting is unknown.
    """
    target = config.target
    ranges = {
        "target.hidden_size": (target.hidden_size, SIZE),
        "target.vocab_size": (target.vocab_size, SIZE),
        "target.layers": (target.layers, COUNT),
        "draft_vocab_size": (config.draft_vocab_size, (1, target.vocab_size)),
        "the number of taps": (len(config.taps), COUNT_OR_NONE),
    }
    for tap in config.taps:
        ranges[f"the tap {shown(tap)}"] = (tap, (-1, target.layers))
    for name, value in config.settings.items():
        if name in WHOLE:
            ranges[f"settings.{name}"] = (value, WHOLE[name])  # type: ignore[assignment]  # checked below
        elif name not in FRACTIONS:
            hint = nearest(name, [*WHOLE, *FRACTIONS], "no architecture has it")
            raise HeadError(f"{file} has the unknown setting {shown(name)} ({hint}); {remedy}")
        elif not 0 < value <= FRACTIONS[name]:
            raise HeadError(
                f"{file} says settings.{name} is {shown(value)}; it must be greater than 0 and at most "
                f"{FRACTIONS[name]:g}; {remedy}"
            )
    for name, (number, (least, most)) in ranges.items():
        if not least <= number <= most or number != int(number):
            raise HeadError(
                f"{file} says {name} is {shown(number)}; it must be a whole number from {least} to {most}; {remedy}"
            )
    _check_attention(config, file, remedy)


def _check_attention(config: HeadConfig, file: Path, remedy: str) -> None:
    """Check what the heads of attention must have in common."""
    settings = config.settings
    if "key_heads" in settings and settings.get("heads", 0) % settings["key_heads"]:
        heads, key_heads = settings.get("heads"), settings["key_heads"]
        raise HeadError(f"{file} says heads is {heads} and key_heads {key_heads}, which does not divide it; {remedy}")
    if settings.get("head_size", 0) % 2:
        raise HeadError(f"{file} says head_size is {settings['head_size']}; it must be even; {remedy}")
    if config.target.hidden_size % settings.get("parts", 1):
        raise HeadError(
            f"{file} says parts is {settings['parts']}, which does not divide hidden_size, "
            f"{config.target.hidden_size}; {remedy}"
        )


def fit_weights(
    config: HeadConfig, weights: Mapping[str, Tensor], place: Path, remedy: str, names: Mapping[str, str] | None = None
) -> Head:
    """Build a head of tensors. The tensors are compared before a head of the configuration's sizes is allocated.

    Args:
        config: the head's configuration, which `check_config` has checked.
        weights: its tensors.
        place: the file or the directory that they are from, for messages.
        remedy: how messages end.
        names: what the file calls them, where it is not the architecture's own name.

    Returns:
        The head. Nothing is attached to it yet.

    Raises:
        HeadError: a tensor is missing, superfluous, of another shape or type, or has a number that is not finite; or
            the head's tokens are not those of its model, each once.
    """
    expected = _shapes(config, place, remedy)
    called = names or {}
    for name, tensor in expected.items():
        theirs, shape = called.get(name, name), _shape(tensor)
        if name not in weights:
            raise HeadError(f"{place} lacks the tensor {theirs} of shape {shape}, which {CONFIG} asks for; {remedy}")
        if weights[name].shape != tensor.shape:
            raise HeadError(
                f"{place} has {theirs} of shape {_shape(weights[name])}, and {CONFIG} asks for {shape}; {remedy}"
            )
        check_numbers(weights[name], theirs, place, remedy, whole=not tensor.is_floating_point())
    for name in weights.keys() - expected.keys():
        raise HeadError(
            f"{place} has the tensor {called.get(name, name)} of shape {_shape(weights[name])}, which a head of "
            f"{config.architecture} with this {CONFIG} does not have; {remedy}"
        )
    if "vocabulary" in weights:
        _check_tokens(weights["vocabulary"], config.target.vocab_size, place, remedy)
    head = build_head(config)
    head.load_state_dict(dict(weights))
    return head


def check_numbers(tensor: Tensor, name: str, place: Path, remedy: str, *, whole: bool) -> None:
    """Check the type of a tensor, and that its numbers are finite.

    Args:
        tensor: the tensor.
        name: what messages call it.
        place: the file or the directory that it is from.
        remedy: how messages end.
        whole: whether it must have whole numbers.

    Raises:
        HeadError: it has another type, or a number that is not finite.
    """
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if not (is_whole if whole else tensor.is_floating_point()):
        kind = "whole numbers" if whole else "floating-point numbers"
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise HeadError(f"{place} has {name} of type {dtype}; it must have {kind}; {remedy}")
    if not whole and not bool(tensor.isfinite().all()):
        wrong = float(tensor[~tensor.isfinite()].flatten()[0])
        raise HeadError(f"{place} has the number {wrong} in {name}; all must be finite; {remedy}")


def _shapes(config: HeadConfig, place: Path, remedy: str) -> dict[str, Tensor]:
    """Return a head's tensors without their numbers."""
    try:
        with torch.device("meta"):
            return build_head(config).state_dict()
    except (RuntimeError, *CODE_ERRORS) as e:  # Such as a matrix of more numbers than torch can count.
        raise HeadError(f"{place} has a {CONFIG} of which no head can be built: {first_line(e)}; {remedy}") from e


def _check_tokens(tokens: Tensor, limit: int, place: Path, remedy: str) -> None:
    """Check that a head's tokens are tokens of its model, each once."""
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < limit:
        wrong = next(token for token in tokens.tolist() if not 0 <= token < limit)
        raise HeadError(f"{place} names tokens outside 0..{limit - 1}, such as {wrong}; {remedy}")
    ordered = tokens.sort().values
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise HeadError(f"{place} names the token {int(repeated[0])} more than once; {remedy}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
