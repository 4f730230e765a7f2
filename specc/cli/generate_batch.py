"""Many prompts from a file, and their answers to another: `specc generate --prompts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.cli import console
from specc.cli.answers_file import Answers, key, open_answers
from specc.cli.generate_notes import count
from specc.cli.generate_processors import logprobs_json
from specc.cli.prompt_source import ChatChoice, take_form
from specc.prompts import PromptLine
from specc.runtime.errors import PromptError

if TYPE_CHECKING:
    from specc.runtime.request import RequestOptions
    from specc.runtime.session import Session


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What came of a file of prompts.

    Attributes:
        output: the file of answers.
        prompts: how many prompts there are.
        skipped: how many of them had an answer before that is no error.
        failed: how many answers are errors, those of earlier runs included.
        new_tokens: tokens of the answers of this run.
        seconds: the time of prefill and decoding in this run.
    """

    output: str
    prompts: int
    skipped: int
    failed: int
    new_tokens: int
    seconds: float

    def line(self) -> str:
        """Write the report as one line."""
        parts = [count(self.prompts, "prompt"), f"{self.skipped} answered before", f"{self.failed} failed"]
        speed = f", {self.new_tokens / self.seconds:.1f} tokens/s with prefill" if self.seconds else ""
        return f"{', '.join(parts)}; {count(self.new_tokens, 'new token')}{speed}; {self.output}"


def answer_all(
    session: Session,
    lines: list[PromptLine],
    output: Path,
    choice: ChatChoice,
    max_new_tokens: int,
    options: RequestOptions,
) -> BatchReport:
    """Answer every prompt that the file of answers does not have yet.

    A prompt that cannot be answered gets a line with its error, and the others go on. Options that are wrong for every
    prompt are refused before the first one.

    Args:
        session: the bundle, loaded.
        lines: the prompts.
        output: the file of answers.
        choice: what the user says of the chat template.
        max_new_tokens: the limit of each answer.
        options: the options of each request. With a seed, each request has that seed.

    Raises:
        PromptError: the file of answers is something else, or an option is out of range.
        RecipeError: the recipe or the rule does not exist.
    """
    session.stream([0], 1, **options)  # It checks the options. Nothing is decoded until its first piece is taken.
    with open_answers(output, lines) as answers, console.stages() as stage:
        if answers.repaired:
            console.note(f"the last line of {output} was torn; its prompt is answered again")
        missing = [line for line in lines if key(line.index, line.id) not in answers.done]
        skipped = len(answers.done) - _failures(answers)
        tokens, seconds = 0, 0.0
        for line in missing:
            stage(f"answer {count(len(lines), 'prompt')}", len(answers.done), len(lines))
            answer = _answer(session, line, choice, max_new_tokens, options)
            with console.naming(output):
                answers.write(answer)
            if "stats" in answer:
                tokens += answer["stats"]["new_tokens"]
                seconds += answer["stats"]["prefill_seconds"] + answer["stats"]["seconds"]
        return BatchReport(
            output=str(output),
            prompts=len(lines),
            skipped=skipped,
            failed=_failures(answers),
            new_tokens=tokens,
            seconds=seconds,
        )


def _failures(answers: Answers) -> int:
    return len([answer for answer in answers.done.values() if "error" in answer])


def _answer(
    session: Session, line: PromptLine, choice: ChatChoice, max_new_tokens: int, options: RequestOptions
) -> dict[str, Any]:
    """Answer one prompt, or say why that cannot be done, as plain data."""
    names = {"index": line.index, "id": line.id}
    try:
        if isinstance(line.source, PromptError):
            raise line.source  # It names the file and the line.
        form = take_form(line.source, session.text, choice)
        whole: RequestOptions = {**options, **form.options}
        generation = session.generate(form.prompt, max_new_tokens, **whole)
    except PromptError as e:
        where = "" if e is line.source else f"line {line.number}: "
        return {**names, "error": where + " ".join(str(e).split())}
    answer: dict[str, Any] = {
        **names,
        "chat": form.chat,
        "text": generation.text,
        "token_ids": generation.token_ids,
        "finish_reason": generation.finish_reason,
        "stop_reason": generation.stop_reason,
        "stats": generation.stats.to_json(),
    }
    if generation.logprobs is not None:
        answer["logprobs"] = logprobs_json(generation.logprobs, session.text)
    return answer
