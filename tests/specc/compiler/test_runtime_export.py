"""The steps that exports to other runtimes share. test_genai.py and test_openvino.py test whole exports."""

from __future__ import annotations

import pytest

from specc.compiler.runtime_export import check_answer
from specc.exactness.golden import Case
from specc.runtime.errors import BackendError

CASE = Case(prompt="a", prompt_ids=[1], token_ids=[2, 3], gaps=[1.0, 0.0001])


@pytest.mark.parametrize("answer", [[2, 3], [2, 9]])
def test_the_golden_tokens_and_a_near_tie_pass(answer: list[int]) -> None:
    check_answer("Another", 0, answer, CASE, 0.001)


def test_another_token_is_one_line_with_both_tokens_and_their_place() -> None:
    message = "^Another gives token 9 where golden output 4 has token 2 at 0, so nothing is written; report this$"
    with pytest.raises(BackendError, match=message):
        check_answer("Another", 4, [9, 3], CASE, 0.001)
