"""Decode golden prompts in onnxruntime-genai: `python -m specc.exactness.genai_replay DIRECTORY GOLDEN DRAFT…`.

It runs in a process of its own, since onnxruntime-genai loads an ONNX Runtime of its own choice. For each case it
prints the tokens as JSON, on one line. Each DRAFT is a number of tokens
that the draft model drafts at a time; 0 decodes plainly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from specc.exactness.golden import Case, read_cases


def decode(directory: Path, cases: list[Case], draft_tokens: int = 0) -> Iterator[list[int]]:
    """Decode each case greedily, and yield as many tokens as the case has.

    Args:
        directory: what `specc export --to onnxruntime-genai` wrote.
        cases: golden cases.
        draft_tokens: tokens of a draft; 0 decodes plainly.
    """
    import onnxruntime_genai as og  # A process that only names this module need not load it.

    model = og.Model(str(directory))
    for case in cases:
        params = og.GeneratorParams(model)
        length = len(case.prompt_ids) + len(case.token_ids)
        params.set_search_options(max_length=length, do_sample=False, repetition_penalty=1.0)
        if draft_tokens:
            params.set_speculative_options(max_draft_tokens=draft_tokens)
        generator = og.Generator(model, params)
        generator.append_tokens(case.prompt_ids)
        tokens: list[int] = []
        while len(tokens) < len(case.token_ids) and not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        yield tokens


if __name__ == "__main__":
    for number in sys.argv[3:]:
        for answer in decode(Path(sys.argv[1]), read_cases(Path(sys.argv[2])), int(number)):
            print(json.dumps(answer), flush=True)
