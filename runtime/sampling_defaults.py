"""How a model samples where a request does not say it: what its `generation_config.json` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}  # The values that leave a distribution as it is.


@dataclass(frozen=True)
class SamplingDefaults:
    """The sampling defaults of a model.

    Attributes:
        config: what the model asks for, by transformers' names; empty means greedy decoding.
    """

    config: Mapping[str, Any]

    def resolve(self, temperature: Any, top_p: Any, top_k: Any) -> dict[str, Any]:
        """Return the options of a request, with the model's defaults for those that are None.

        As in transformers, a model samples by default if its `do_sample` is true, and at temperature 1 if it names no
        other. At temperature 0 its other defaults do not matter.
        """
        defaults = {**NEUTRAL, **self._set}
        if temperature is None:
            temperature = defaults["temperature"] if self.config.get("do_sample") is True else 0.0
        if temperature == 0:
            defaults = NEUTRAL
        passed = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        return {name: defaults[name] if value is None else value for name, value in passed.items()}

    def in_use(self, temperature: Any, top_p: Any, top_k: Any) -> dict[str, Any]:
        """Return the model's defaults that change a request with these options, by name."""
        options = self.resolve(temperature, top_p, top_k)
        if options["temperature"] == 0:
            return {}
        passed = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        names = [name for name, value in passed.items() if value is None]
        return {name: options[name] for name in names if name == "temperature" or options[name] != NEUTRAL[name]}

    @property
    def not_applied(self) -> dict[str, Any]:
        """What the model asks for beside `do_sample`, temperature, top-p and top-k. specc does not apply it."""
        return {name: value for name, value in self.config.items() if name not in ("do_sample", *NEUTRAL)}

    @property
    def _set(self) -> dict[str, Any]:
        """The options that the model names."""
        return {name: self.config[name] for name in NEUTRAL if self.config.get(name) is not None}
