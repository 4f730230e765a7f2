"""Golden cases of a bundle, added and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.exactness.self_reference import decode_plainly
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import link, write_manifest, written_whole
from specc.runtime.errors import BundleError, PromptError
from specc.runtime.session import open_session

Advance = Callable[[int, int], None]  # Called with the prompts that are decoded, and their number.


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two golden files differ.

    Attributes:
        compared: a result for each case of the first file whose prompt is in the second, too.
        missing: texts of the prompts that are only in the first file.
        new: texts of the prompts that are only in the second file.
    """

    compared: tuple[Replayed, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Tell whether both files have the same cases."""
        return not self.missing and not self.new and all(result.at is None for result in self.compared)


def add_cases(
    path: Path,
    prompts_file: Path,
    tokens: int,
    reference: str | None = None,
    allow_native_code: bool = False,
    advance: Advance = lambda done, count: None,
) -> Bundle:
    """Add a golden case to a bundle for each prompt of a file.

    Args:
        path: the bundle. It has the old cases or all of them, also if the process is killed.
        prompts_file: JSON lines, see `specc.prompts.read`.
        tokens: tokens of each case at most.
        reference: a model that transformers loads, which decodes the prompts. None decodes them plainly by the bundle.
        allow_native_code: run engines that are native code.
        advance: is called as work goes on.

    Raises:
        SpeccError: the bundle, the prompts or the reference cannot be used, or a prompt is a case already.
    """
    golden.check_reference(reference)
    texts = golden.read_prompts(prompts_file)
    bundle = open_bundle(path, allow_native_code)
    cases, model = golden.checked_cases(bundle), bundle.manifest.model
    session = open_session(bundle)
    encoded = [(text, session.text.encode(text)) for text in texts]
    present = {tuple(case.prompt_ids) for case in cases}
    for text, ids in encoded:
        if not ids:
            raise PromptError(f"{prompts_file}: the prompt {text[:40]!r} has no tokens; leave it out")
        if tuple(ids) in present:
            raise PromptError(f"{prompts_file}: the bundle has the prompt {text[:40]!r} already; leave it out")
        if len(ids) + tokens > model.context:
            raise PromptError(
                f"{prompts_file}: the prompt {text[:40]!r} has {len(ids)} tokens, and {tokens} more exceed the context "
                f"of {model.context}; give a shorter prompt, or a smaller --golden-tokens"
            )
        present.add(tuple(ids))
    if reference is not None:
        from specc.exactness.reference import decode_with

        added = decode_with(reference, model, encoded, tokens, advance)
    else:
        added = []
        for number, (text, ids) in enumerate(encoded):
            advance(number, len(encoded))
            added.append(decode_plainly(session, text, ids, tokens, model.eos_token_ids))
    _check_added(added, golden.implied_tolerance(bundle.manifest), prompts_file)
    _rewrite(bundle, [*cases, *added])
    return open_bundle(path, allow_native_code)


def _check_added(cases: Sequence[Case], tolerance: float, prompts_file: Path) -> None:
    """Refuse cases with which the bundle could not be tested any more.

    Raises:
        PromptError: nearly any answer to a prompt would pass.
    """
    for case in cases:
        try:
            golden.check_gaps([case], tolerance, golden.FILE)
        except BundleError as e:
            raise PromptError(
                f"{prompts_file}: after the prompt {case.prompt[:40]!r} more than half of {len(case.token_ids)} tokens "
                f"are near-ties, closer than {tolerance:g}; leave it out, or give a larger --golden-tokens"
            ) from e


def compare_files(first: Path, second: Path, tolerance: float) -> Difference:
    """Compare the golden cases of two bundles, or of two golden files. Cases of one prompt belong together.

    Args:
        first: the cases that are expected: a bundle, or a file.
        second: the others.
        tolerance: a gap of logits below which a difference is a near-tie.

    Raises:
        BundleError: a file cannot be read, or the tolerance is above most gaps of the first.
    """
    if not 0 <= tolerance < inf:
        raise BundleError(f"the tolerance is {tolerance:g}; give a number of 0 or more, such as 0.001")
    expected, others = _read(first), _read(second)
    golden.check_gaps(expected, tolerance, str(first))
    others_by_prompt = {tuple(case.prompt_ids): case for case in others}
    prompts = {tuple(case.prompt_ids) for case in expected}
    compared = [
        _judge(str(second), number, other, case, tolerance)
        for number, case in enumerate(expected)
        if (other := others_by_prompt.get(tuple(case.prompt_ids)))
    ]
    return Difference(
        compared=tuple(compared),
        missing=tuple(case.prompt for case in expected if tuple(case.prompt_ids) not in others_by_prompt),
        new=tuple(case.prompt for case in others if tuple(case.prompt_ids) not in prompts),
    )


def _judge(name: str, number: int, other: Case, case: Case, tolerance: float) -> Replayed:
    """Compare a case with the one that is expected, which must be as long."""
    result, length = golden.judge(name, number, other.token_ids, case, tolerance), len(case.token_ids)
    if result.at is None and len(other.token_ids) > length:
        return replace(result, verdict=Verdict.DIVERGED, at=length, token=other.token_ids[length])
    return result


def _read(path: Path) -> list[Case]:
    """Read the golden cases of a bundle, or of a file. Raises BundleError if there are none, or two of one prompt."""
    if path.is_dir():
        bundle = open_bundle(path)
        bundle.check(golden.FILE)
        path = bundle.file(golden.FILE)
    if not path.is_file():
        raise BundleError(f"there is no {path}; name a bundle, or a {golden.FILE}")
    cases = golden.read_cases(path)
    if not cases:
        raise BundleError(f"{path} has no golden cases; compile the bundle again")
    golden.check_prompts(cases, str(path))
    return cases


def _rewrite(bundle: Bundle, cases: Sequence[Case]) -> None:
    """Replace a bundle by one with other golden cases, in one step. Its other files are not copied where links work."""
    manifest = bundle.manifest
    with written_whole(bundle.path, overwrite=True) as directory:
        for name in manifest.files:
            if name != golden.FILE:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                link(bundle.path / name, directory / name)
        golden.write_cases(cases, directory / golden.FILE)
        files = {name: file for name, file in manifest.files.items() if name != golden.FILE}
        write_manifest(directory, replace(manifest, files=files))
        if open_bundle(bundle.path).manifest != manifest:
            raise BundleError(f"the bundle at {bundle.path} was changed while this process worked on it; start again")
