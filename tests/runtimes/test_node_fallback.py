"""Node without libspecc: onnxruntime-node runs the engines, and the loop is that of runtimes/javascript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shell import copied

from specc.exactness.golden import read_cases
from specc.runtime.bundle import open_bundle

ROOT = Path(__file__).parents[2]
RUNTIMES = ROOT / "runtimes"
BUILD = ROOT / "build" / "node-fallback"
FROZEN = ROOT / "tests" / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
RECIPES = ["plain", "prompt-lookup", "layer-skip", "quantized-self-draft", "early-exit"]
VERSION = "1.30.0"
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.xdist_group("node-fallback")]


@pytest.fixture(scope="module")
def package() -> Path:
    """Install the package with onnxruntime-node, whose files for all systems have 288 MB."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    for name in ("node", "javascript"):
        (BUILD / name).mkdir(parents=True, exist_ok=True)
        for file in (RUNTIMES / name).iterdir():
            if file.is_file():
                shutil.copy(file, BUILD / name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    # Node also looks for packages in the folders above, as in a project that depends on both.
    project = ["install", "--prefix", str(BUILD), *options, f"onnxruntime-node@{VERSION}"]
    for modules, command in ((BUILD / "node" / "node_modules", ["ci", *options]), (BUILD / "node_modules", project)):
        if modules.exists():
            continue
        result = subprocess.run(["npm", *command], cwd=BUILD / "node", capture_output=True, text=True, timeout=600)
        if result.returncode and not os.environ.get("CI"):
            pytest.skip("npm cannot install onnxruntime-node here")
        assert result.returncode == 0, result.stderr
    return BUILD / "node"


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "SPECC_LIBRARY"}
    command = ["node", *arguments]
    return subprocess.run(command, cwd=package, env=variables, capture_output=True, text=True, timeout=120)


def test_golden_outputs_are_identical_by_every_recipe(package: Path) -> None:
    result = run(package, "replay.js", str(FROZEN), "--json")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    answers = [line for line in lines if "left_out" not in line]
    others = {line["recipe"] for line in lines if "left_out" in line}
    assert lines[: len(others)] == [line for line in lines if "left_out" in line]
    assert others == {recipe.name for recipe in open_bundle(FROZEN).manifest.recipes} - set(RECIPES)
    assert [(answer["recipe"], answer["case"]) for answer in answers] == [(r, i) for r in RECIPES for i in range(4)]
    assert all(answer["token_ids"] == CASES[answer["case"]].token_ids for answer in answers)


def test_streams_end_when_the_loop_is_left_and_the_event_loop_goes_on(package: Path) -> None:
    program = f"""
        import {{ open }} from "./index.js";
        const model = await open({json.dumps(str(FROZEN))}, {{ threads: 1 }});
        const session = model.session();
        const prompt = {CASES[0].prompt_ids};
        const first = [];
        for await (const step of session.stream(prompt, {{ maxNewTokens: 200, recipe: "plain" }})) {{
            first.push(...step);
            if (first.length === 3) break;
        }}
        let turns = 0;
        const timer = setInterval(() => turns++, 0);
        const {{ tokens, stats }} = await session.generate(prompt, {{ maxNewTokens: {len(CASES[0].token_ids)} }});
        clearInterval(timer);
        const pieces = [];
        for await (const piece of session.streamText("def wrap(", {{ maxNewTokens: 8 }})) pieces.push(piece);
        const work = session.generate(prompt, {{ maxNewTokens: 200, recipe: "lookahead" }});
        session.cancel();
        const cancelled = (await work).stats;
        const refusal = await session.generate([], {{}}).catch((error) => error.message);
        await model.close();
        const {{ runtime }} = model;
        console.log(JSON.stringify({{ runtime, first, tokens, stats, turns, pieces, cancelled, refusal }}));
    """
    result = run(package, "--input-type=module", "--eval", program)
    assert result.returncode == 0, result.stderr
    values: dict[str, Any] = json.loads(result.stdout)
    assert values["runtime"] == f"onnxruntime-node {VERSION}"
    assert values["first"] == CASES[0].token_ids[:3] and values["tokens"] == CASES[0].token_ids
    assert values["stats"]["recipe"] == "prompt-lookup" and values["stats"]["newTokens"] == len(CASES[0].token_ids)
    assert values["turns"] > 0 and len(values["pieces"]) > 1
    cancelled = values["cancelled"]
    assert cancelled["newTokens"] < 200 and cancelled["recipe"] in RECIPES
    assert all(value is not None for value in cancelled.values()), "no number is missing"
    assert values["refusal"].startswith("the prompt has 0 tokens; give 1 to ")


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.jsonl"])
def test_a_changed_bundle_is_refused_in_one_line(name: str, package: Path, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    with (bundle / name).open("r+b") as file:
        file.write(b"\1")
    result = run(package, "replay.js", str(bundle))
    assert result.returncode == 2
    assert result.stderr == f"specc-replay-node: error: {name} of {bundle} was changed; copy the bundle again\n"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_changed_tokenizer_is_refused_in_one_line(name: str, package: Path, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    (bundle / name).write_text((bundle / name).read_text(encoding="utf-8") + " ", encoding="utf-8")
    program = f"""
        import {{ open }} from "./index.js";
        const model = await open({json.dumps(str(bundle))}, {{ threads: 1 }});
        console.log(await model.text().then(() => "read", (error) => error.message));
        await model.close();
    """
    result = run(package, "--input-type=module", "--eval", program)
    size = (FROZEN / name).stat().st_size
    assert result.stdout == (
        f"{name} of {bundle} has {size + 1} bytes, and the manifest says {size}; copy the bundle again\n"
    ), result.stderr
