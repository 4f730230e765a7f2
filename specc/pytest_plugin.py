"""A pytest plugin: the golden outputs of bundles as tests, `pytest --specc-bundle DIR`.

Each golden case is a test for each recipe. A process loads a bundle once, also with pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from specc.exactness.golden import Case
    from specc.runtime.session import Session

MANIFEST = "manifest.json"
BUNDLES = "A bundle that 'specc compile' wrote: its golden outputs become tests. May be repeated."
RECIPES = "The recipe to test. May be repeated. Default: all recipes of the bundle."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options to pytest's."""
    group = parser.getgroup("specc", "golden outputs of specc bundles")
    group.addoption("--specc-bundle", action="append", default=[], metavar="DIR", help=BUNDLES)
    group.addoption("--specc-recipe", action="append", default=[], metavar="NAME", help=RECIPES)


def pytest_configure(config: pytest.Config) -> None:
    """Add the bundles to what pytest collects.

    Raises:
        pytest.UsageError: there is no such bundle.
    """
    config.addinivalue_line("markers", "specc: a golden case of a specc bundle")
    config.addinivalue_line("markers", "specc_recipe(name): the recipe that decodes it")
    for folder in config.getoption("--specc-bundle"):
        manifest = Path(folder).absolute() / MANIFEST
        if not manifest.is_file():
            raise pytest.UsageError(f"--specc-bundle {folder}: there is no bundle; specc compile writes one")
        if str(manifest) not in config.args:
            config.args.append(str(manifest))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the manifest of a bundle that an option names."""
    folders = [Path(folder).absolute() for folder in parent.config.getoption("--specc-bundle")]
    if file_path.name == MANIFEST and file_path.parent in folders:
        return BundleFile.from_parent(parent, path=file_path)
    return None


class BundleFile(pytest.File):
    """A bundle."""

    def collect(self) -> Iterable[pytest.Item]:
        """Check the bundle, and yield a test for each recipe and golden case."""
        from specc.exactness import golden
        from specc.runtime.bundle import open_bundle
        from specc.runtime.errors import SpeccError
        from specc.runtime.session import open_session

        try:
            bundle = open_bundle(self.path.parent)
            cases = golden.checked_cases(bundle)
            names = self.config.getoption("--specc-recipe") or [recipe.name for recipe in bundle.manifest.recipes]
            names = [bundle.recipe(name).name for name in names]
        except SpeccError as e:
            raise self.CollectError(str(e)) from e
        self.tolerance = golden.implied_tolerance(bundle.manifest)
        self._open = partial(open_session, bundle)
        self._session: Session | None = None
        yield from self._items(names, cases)

    def _items(self, names: Iterable[str], cases: list[Case]) -> Iterator[pytest.Item]:
        for name in names:
            for number, case in enumerate(cases):
                yield CaseItem.from_parent(self, name=f"{name}[{number}]", recipe=name, number=number, case=case)

    @property
    def bundle_session(self) -> Session:
        """The loaded bundle. It is loaded when the first test runs."""
        if self._session is None:
            self._session = self._open()
        return self._session


class CaseItem(pytest.Item):
    """A golden case, decoded by a recipe."""

    def __init__(self, *, recipe: str, number: int, case: Case, **others: Any) -> None:
        super().__init__(**others)
        self.recipe, self.number, self.case = recipe, number, case
        self.add_marker(pytest.mark.specc)
        self.add_marker(pytest.mark.specc_recipe(recipe))

    def runtest(self) -> None:
        """Replay the case.

        Raises:
            AssertionError: the recipe's tokens diverge from the golden ones.
        """
        from specc.exactness import golden

        file = self.parent
        assert isinstance(file, BundleFile)
        session, cases = file.bundle_session, [self.case]
        results = golden.name_engines(session, cases, golden.replay(session, cases, [self.recipe], file.tolerance))
        results = golden.add_best_logits(session, cases, results)
        (result,) = golden.confirm_near_ties(session.bundle, results)
        self.add_report_section("call", "specc", result.explanation())
        if result.verdict is golden.Verdict.DIVERGED:
            raise AssertionError(result.explanation())

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what a failure prints: one line for a divergence."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the case is, and its name."""
        return self.path, None, f"{self.path.parent.name}: {self.name}: {self.case.prompt[:40]!r}"
