"""Write the prompts that eagle3-smollm2 was trained on, for `specc train --data`.

    python examples/heads/make_prompts.py prompts.jsonl 7000
    python examples/heads/make_prompts.py turns.jsonl 6000 --seed 1 --turns

Half of them are of the templates that ship with specc. A quarter show the head and the docstring of a Python function
and ask for its body. A quarter ask for a summary or an explanation of a docstring, or of a passage of Python's language
reference. The text is that of Python's standard library (PSF licence), so the prompts depend on its version.

With --turns, each prompt has a second turn about the first answer, such as a request to summarize it. All prompts are
then of the templates.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

from specc.training.prompts import shipped_prompts

SHORTEST, LONGEST = 200, 1100  # characters of a passage
CODE = (
    "{}",
    "Complete this function.\n\n{}",
    "Write the body of this Python function:\n\n```python\n{}```",
    "Implement the following function in Python and return only the code.\n\n{}",
)
PROSE = (
    "Summarize the following text.\n\n{}",
    "Summarize: {}",
    "Summarize this passage in two sentences.\n\n{}",
    "{}\n\nGive the main points of this text.",
    "Read the passage and write one question about it, with the answer.\n\nPassage: {}",
    "Explain this to a beginner:\n\n{}",
    "Rewrite the text in simple words.\n\n{}",
)

ABOUT_CODE = (
    "Add a docstring to the function.",
    "Rename the variables to longer names, and change nothing else.",
    "Write two tests for this function.",
    "Explain the code line by line.",
    "Raise ValueError where an argument is wrong.",
    "Write it in fewer lines.",
)
ABOUT_TEXT = (
    "Summarize this text in two sentences.",
    "Summarize it in one sentence.",
    "List the three main points of this text.",
    "Rewrite it for a child.",
    "Make it shorter.",
    "Write a title for it.",
    "Write one question about it, with the answer.",
    "Explain the first point in more detail.",
    "Write the same as an e-mail to a colleague.",
    "What did you leave out?",
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the text and the syntax tree of each module of the standard library."""
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py")):
        if not {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(file.parts):
            try:
                text = file.read_text(encoding="utf-8")
                yield text, ast.parse(text)
            except (SyntaxError, ValueError):
                continue


def functions(text: str, tree: ast.Module) -> Iterator[str]:
    """Yield the head and the docstring of each function of a module that has both."""
    lines = text.splitlines(keepends=True)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (ast.get_docstring(node) or "") and len(node.body) > 1:
            yield "".join(lines[node.lineno - 1 : node.body[0].end_lineno])


def passages(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def pieces(text: str) -> Iterator[str]:
    """Yield parts of a long text: whole paragraphs, as many as are not too long."""
    part = ""
    for paragraph in text.split("\n\n"):
        if part and len(part) + len(paragraph) > LONGEST:
            yield part
            part = ""
        part += paragraph + "\n\n"
    yield part


def single_turns(count: int, rng: random.Random, seed: int) -> list[str]:
    """Return prompts of the templates and of Python's standard library, in random order."""
    code, prose = set(), set()
    for text, tree in sources():
        code |= {function for function in functions(text, tree) if len(function) < LONGEST}
        prose |= set(passages(tree))
    prose |= {piece for topic in topics.topics.values() for piece in pieces(topic)}
    texts = sorted(" ".join(text.split()) for text in prose if SHORTEST < len(text) < LONGEST)
    rng.shuffle(texts)
    completions = [rng.choice(CODE).format(function) for function in sorted(code)]
    rng.shuffle(completions)
    questions = [rng.choice(PROSE).format(text) for text in texts]
    prompts = [*shipped_prompts(count // 2, seed), *completions[: count // 4], *questions[: count // 4]]
    rng.shuffle(prompts)
    return prompts


def two_turns(count: int, rng: random.Random, seed: int) -> list[list[str]]:
    """Return prompts of the templates, each with a second turn about the answer."""
    prompts = shipped_prompts(count, seed)
    return [[prompt, rng.choice(ABOUT_CODE if "Python" in prompt else ABOUT_TEXT)] for prompt in prompts]


def main() -> None:
    """Write the prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("count", type=int, help="the largest number of prompts")
    parser.add_argument("--seed", type=int, default=0, help="which of the templates' prompts are taken (default 0)")
    parser.add_argument("--turns", action="store_true", help="give each prompt a second turn")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    lines = (
        [{"turns": turns} for turns in two_turns(arguments.count, rng, arguments.seed)]
        if arguments.turns
        else [{"prompt": prompt} for prompt in single_turns(arguments.count, rng, arguments.seed)]
    )
    arguments.output.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} prompts")


if __name__ == "__main__":
    main()
