"""A compile that does not measure the recipes, which takes a process of its own and runs of every recipe."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from specc.compiler import Options, Report, compile_bundle, measure
from specc.compiler.separate_process import run_module
from specc.tuning import default_recipe


def compile_quickly(options: Options) -> Report:
    """Compile a bundle whose default is plain decoding, since nothing says which recipe is fastest."""

    def run_others(module: ModuleType, *arguments: str, **settings: Any) -> None:
        if module is not default_recipe:
            run_module(module, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "run_module", run_others)
        return compile_bundle(options)
