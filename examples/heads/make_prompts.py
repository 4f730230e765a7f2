"""Write the prompts that eagle3-smollm2 was trained on, for `specc train --data`.

    python examples/heads/make_prompts.py prompts.jsonl 7000

Half of them are of the templates that ship with specc. A quarter show the head and the docstring of a Python function
and ask for its body. A quarter ask for a summary or an explanation of a docstring, or of a passage of Python's language
reference. The text is that of Python's standard library (PSF licence), so the prompts depend on its version.
"""

from __future__ import annotations

import ast
import json
import random
import sys
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


def main(output: str, count: int) -> None:
    """Write the prompts."""
    rng = random.Random(0)
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
    prompts = [*shipped_prompts(count // 2, seed=0), *completions[: count // 4], *questions[: count // 4]]
    rng.shuffle(prompts)
    Path(output).write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    print(f"{len(prompts)} prompts, of {len(code)} functions and {len(texts)} passages")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
