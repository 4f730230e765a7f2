"""Several threads on one session, and several processes on one cache, get the tokens that each would get alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell import command

import specc

pytestmark = pytest.mark.model

THREADS = """
import itertools, sys
from concurrent.futures import ThreadPoolExecutor
import specc

session = specc.load(sys.argv[1])
recipes = [recipe.name for recipe in session.bundle.manifest.recipes]
prompts = ["import os", "def wrap(text", "import sys", "class A:"]
options = {"ignore_eos": True, "temperature": 0}
alone = [session.generate(prompt, 16, **options).token_ids for prompt in prompts]
counts = dict.fromkeys(("right", "wrong", "refused"), 0)

def work(number):
    prompt, recipe = number % 4, recipes[number % len(recipes)]
    if number % 3:
        return session.generate(prompts[prompt], 16, recipe=recipe, **options).token_ids == alone[prompt]
    stream = session.stream(prompts[prompt], 16, recipe=recipe, **options)
    try:
        all(stream)
    except specc.PromptError as e:
        return "a later request took this session's cache" in str(e) and "refused"
    return stream.token_ids == alone[prompt]

with ThreadPoolExecutor(4) as pool:
    for result in pool.map(work, range(200)):
        counts[{True: "right", False: "wrong"}.get(result, result)] += 1
print(__debug__, counts["wrong"], counts["right"] >= 133, sum(counts.values()))
"""


@pytest.mark.parametrize("mode", [[], ["-O"]], ids=["asserts", "no asserts"])
def test_four_threads_on_one_session_get_no_wrong_token(bundle: Path, mode: list[str]) -> None:
    run = subprocess.run([sys.executable, *mode, "-c", THREADS, bundle], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(not mode), "0", "True", "200"]


def test_processes_that_fill_a_cold_cache_at_once_give_the_tokens_of_one_without_a_cache(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    expected = specc.load(bundle).generate("import os", 16, temperature=0).text
    argv = command("generate", bundle, "--raw", "--prompt", "import os", "--max-new-tokens", 16, "--temperature", 0)
    environment = os.environ | {"SPECC_CACHE": str(tmp_path / "cold")}
    processes = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and "warning" not in errors, errors
        assert out.strip() == expected.strip()
    assert len(list((tmp_path / "cold/packed").iterdir())) == 1
