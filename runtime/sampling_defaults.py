"""How a model chooses tokens where a request does not say it: what its `generation_config.json` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from .real_number import real

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}  # Neutral values of options that sampling has.
PROCESSORS: dict[str, Any] = {"repetition_penalty": 1.0, "bad_words": (), "min_new_tokens": 0}  # Neutral values.
CONFIG_NAMES = {"bad_words": "bad_words_ids"}  # The names of transformers, for options that have another name here.


class PlainGreedy(TypedDict):
    """The options of a request that decodes greedily by the model's own logits."""

    temperature: float
    repetition_penalty: float
    bad_words: tuple[str, ...]
    min_new_tokens: int


# What the golden outputs are decoded by, whatever the model's defaults are.
PLAIN_GREEDY: PlainGreedy = {"temperature": 0.0, "repetition_penalty": 1.0, "bad_words": (), "min_new_tokens": 0}


@dataclass(frozen=True)
class SamplingDefaults:
    """The defaults of a model for the choice of tokens.

    Attributes:
        config: what the model asks for, by transformers' names; empty means greedy decoding.
    """

    config: Mapping[str, Any]

    def sampling(self, **passed: Any) -> dict[str, Any]:
        """Return the sampling options of a request, with the model's defaults for those that are None.

        As in transformers, a model samples by default if its `do_sample` is true, and at temperature 1 if it names no
        other. At temperature 0 its other sampling defaults do not matter.

        Args:
            **passed: the options that a user gives, by the names in SAMPLING.
        """
        temperature = passed.get("temperature")
        if temperature is None:
            temperature = self._default("temperature") if self.config.get("do_sample") is True else 0.0
        options = SAMPLING if real(temperature) == 0 else {name: self._default(name) for name in SAMPLING}
        return {**options, **_present(passed), "temperature": temperature}

    def processors(self, **passed: Any) -> dict[str, Any]:
        """Return the options for processors of a request, with the model's defaults for those that are None.

        Args:
            **passed: the options that a user gives, by the names in PROCESSORS.
        """
        return {name: self._default(name) for name in PROCESSORS} | _present(passed)

    def in_use(self, passed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's defaults that change a request with some options, by name."""
        missing = [name for name in (*SAMPLING, *PROCESSORS) if passed.get(name) is None]
        options = {name: self._default(name) for name in PROCESSORS}
        sampling = self.sampling(**{name: passed.get(name) for name in SAMPLING})
        if sampling["temperature"]:
            options = sampling | options
        neutral = SAMPLING | PROCESSORS | {"temperature": None}  # Any temperature that is not 0 makes a request sample.
        return {name: options[name] for name in missing if name in options and options[name] != neutral[name]}

    @property
    def not_applied(self) -> dict[str, Any]:
        """What the model asks for and specc does not apply."""
        applied = {"do_sample", *(CONFIG_NAMES.get(name, name) for name in (*SAMPLING, *PROCESSORS))}
        return {name: value for name, value in self.config.items() if name not in applied}

    def _default(self, name: str) -> Any:
        """Return the model's value of an option, or the neutral one if the model names none."""
        value = self.config.get(CONFIG_NAMES.get(name, name))
        return (SAMPLING | PROCESSORS)[name] if value is None else value


def _present(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
