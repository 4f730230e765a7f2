"""Node over libspecc: it replays golden outputs, streams off the event loop, and refuses bad input in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libspecc
import pytest
from bad_bundles import KINDS, REMEDY
from shell import copied, edit_golden

from specc.exactness.golden import read_cases
from specc.runtime.bundle import open_bundle

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "runtimes" / "node"
BUILD = ROOT / "build" / "node"
FROZEN = ROOT / "tests" / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]

Script = Callable[[str], Any]


@pytest.fixture(scope="module")
def package() -> Path:
    """Copy the package and install what it needs. Without node, or without a registry, the tests are skipped.

    In continuous integration a registry is demanded, since a skipped test would go unseen.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = (SOURCE / "package-lock.json").read_bytes()
    installed = BUILD / "installed-lock.json"
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, BUILD)
    shutil.copytree(SOURCE.parent / "javascript", BUILD.parent / "javascript", dirs_exist_ok=True)
    if not installed.exists() or installed.read_bytes() != lock:
        # koffi brings compiled files for each platform, so its script need not run.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, timeout=300)
        if result.returncode and not os.environ.get("CI"):
            pytest.skip("npm cannot install koffi here")
        assert result.returncode == 0, result.stderr
        installed.write_bytes(lock)
    return BUILD


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return libspecc.environment() | {"SPECC_LIBRARY": str(libspecc.built() / "libspecc.so")}


@pytest.fixture(scope="module")
def script(package: Path, environment: dict[str, str]) -> Script:
    """Return a function that runs statements with a model and a session, and returns what they return."""

    def run(statements: str) -> Any:
        program = (
            'import { open } from "./index.js";\n'
            f"const folder = {json.dumps(str(FROZEN))};\n"
            "const model = await open(folder, { threads: 1 });\n"
            f"const cases = {json.dumps([[case.prompt_ids, case.token_ids] for case in CASES])};\n"
            "const session = model.session();\n"
            "const refusal = async (work) => { try { await work(); } catch (e) { return e.message; } };\n"
            f"const result = await (async () => {{ {statements} }})();\n"
            "await model.close();\n"
            "console.log(JSON.stringify(result));\n"
        )
        command = ["node", "--input-type=module", "--eval", program]
        result = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


def replay(package: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "replay.js", *arguments]
    return subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, timeout=120)


def test_golden_outputs_are_identical_by_every_recipe(package: Path, environment: dict[str, str]) -> None:
    result = replay(package, environment, str(FROZEN), "--json")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    others = [recipe.name for recipe in open_bundle(FROZEN).manifest.recipes if recipe.name not in libspecc.RECIPES]
    assert others == [line["recipe"] for line in lines[: len(others)]]
    assert all(f"libspecc 0.1.0 lacks drafter {line['recipe']}, " in line["left_out"] for line in lines[: len(others)])
    answers = lines[len(others) :]
    expected = [(recipe, case) for recipe in libspecc.RECIPES for case in range(len(CASES))]
    assert [(answer["recipe"], answer["case"]) for answer in answers] == expected
    assert all(answer["token_ids"] == CASES[answer["case"]].token_ids for answer in answers)


def test_a_golden_output_that_differs_is_status_1(package: Path, environment: dict[str, str], tmp_path: Path) -> None:
    bundle = edit_golden(copied(FROZEN, tmp_path), lambda cases: cases[0]["token_ids"].__setitem__(2, 0))
    result = replay(package, environment, str(bundle))
    assert result.returncode == 1 and result.stdout.count("3 identical, 0 near-tie, 1 diverged") == len(
        libspecc.RECIPES
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_cannot_be_written_is_one_line_and_status_2(
    options: list[str], package: Path, environment: dict[str, str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = ["node", "replay.js", str(FROZEN), *options]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command, cwd=package, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("specc-replay-node: error: cannot write the output (ENOSPC")


@pytest.mark.parametrize(
    ("folder", "library", "message"),
    [
        ("/nowhere", None, "cannot read /nowhere/manifest.json; name a bundle that specc compile wrote"),
        (None, None, "give a bundle: node replay.js BUNDLE [--json]"),
        ("--jso", None, "give a bundle: node replay.js BUNDLE [--json]"),
        (f"{FROZEN} --jso", None, "give a bundle: node replay.js BUNDLE [--json]"),
        (str(FROZEN), "/nowhere/libspecc.so", "cannot load libspecc at /nowhere/libspecc.so ("),
        (str(FROZEN), "libc.so.6", "cannot load libspecc at libc.so.6 ("),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_2(
    folder: str | None, library: str | None, message: str, package: Path, environment: dict[str, str]
) -> None:
    variables = environment | ({"SPECC_LIBRARY": library} if library else {})
    result = replay(package, variables, *(folder.split() if folder else []))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"specc-replay-node: error: {message}")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_printed_and_no_bundle_is_opened(option: str, package: Path, environment: dict[str, str]) -> None:
    result = replay(package, environment, option)
    assert (result.returncode, result.stdout, result.stderr) == (0, "usage: node replay.js BUNDLE [--json]\n", "")


@pytest.mark.parametrize("empty", [{}, {"SPECC_LIBRARY": ""}], ids=["no variable", "an empty variable"])
def test_without_libspecc_and_onnxruntime_node_one_line_names_both(empty: dict[str, str], package: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "SPECC_LIBRARY"} | empty
    result = replay(package, variables, str(FROZEN))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    start = "specc-replay-node: error: cannot load libspecc at libspecc.so.0 ("
    assert result.stderr.startswith(start) and "; or install onnxruntime-node (" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_cannot_be_used_is_one_line(
    kind: str, package: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    damage, reason = KINDS[kind]
    bundle = copied(FROZEN, tmp_path)
    damage(bundle)
    result = replay(package, environment, str(bundle))
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and reason in result.stderr
    assert str(bundle) in result.stderr, "the line names the file"
    assert REMEDY.search(result.stderr), result.stderr


def test_an_answer_and_its_stream_agree_and_the_event_loop_goes_on(script: Script) -> None:
    result = script("""
        const [prompt, golden] = cases[1];
        let turns = 0;
        const timer = setInterval(() => turns++, 0);
        const { tokens, stats } = await session.generate(prompt, { maxNewTokens: golden.length, recipe: "plain" });
        clearInterval(timer);
        const steps = [];
        for await (const step of session.stream(prompt, { maxNewTokens: golden.length, recipe: "prompt-lookup" }))
            steps.push(step);
        return { turns, tokens, stats, steps };
    """)
    assert result["tokens"] == CASES[1].token_ids == [token for step in result["steps"] for token in step]
    assert result["turns"] > 0 and len(result["steps"]) < len(result["tokens"])
    assert result["stats"]["recipe"] == "plain" and result["stats"]["newTokens"] == len(result["tokens"])


def test_leaving_the_loop_ends_the_answer_and_the_session_goes_on(script: Script) -> None:
    result = script("""
        const [prompt, golden] = cases[0];
        const first = [];
        for await (const step of session.stream(prompt, { maxNewTokens: 200, recipe: "plain" })) {
            first.push(...step);
            if (first.length === 3) break;
        }
        const again = await session.generate(prompt, { maxNewTokens: golden.length });
        return [first, again.tokens];
    """)
    assert result == [CASES[0].token_ids[:3], CASES[0].token_ids]


def test_sessions_decode_at_once(script: Script) -> None:
    result = script("""
        const work = cases.map(([prompt, golden]) => model.session().generate(prompt, { maxNewTokens: golden.length }));
        return (await Promise.all(work)).map((answer) => answer.tokens);
    """)
    assert result == [case.token_ids for case in CASES]


def test_more_answers_at_once_than_calls_may_run_wait_for_each_other(script: Script) -> None:
    result = script("""
        const sessions = Array.from({ length: 600 }, () => model.session());
        const work = sessions.map((each, i) => each.generate(cases[i % 4][0], { maxNewTokens: 2, recipe: "plain" }));
        return (await Promise.all(work)).map((answer) => answer.tokens);
    """)
    assert result == [CASES[number % 4].token_ids[:2] for number in range(600)]


def test_bad_requests_are_one_line(script: Script) -> None:
    result = script("""
        const slow = session.generate(cases[0][0], { maxNewTokens: 64, recipe: "plain" });
        const busy = await refusal(() => session.generate([1], {}));
        await slow;
        const empty = await refusal(() => session.generate([], {}));
        const recipe = await refusal(() => session.generate([1], { recipe: "plai" }));
        const count = await refusal(() => session.generate([1], { maxNewTokens: 0 }));
        const number = await refusal(() => session.generate([1], { recipe: 7 }));
        const zero = await refusal(() => session.generate([1], { recipe: "plain\\0x" }));
        await session.close();
        const closed = await refusal(() => session.generate([1], {}));
        const path = await refusal(() => open("x", { onnxruntime: 7 }));
        const threads = await refusal(() => open("x", { threads: "x" }));
        return [busy, empty, recipe, count, number, zero, closed, path, threads];
    """)
    beginnings = [
        "this session decodes another answer; wait",
        "the prompt has 0 tokens; give 1 to ",
        "the bundle has no recipe 'plai', only plain, ",
        "maxNewTokens is 0; give a whole number of 1 or more",
        "recipe is 7; give a text",
        'recipe is "plain\\u0000x"; give a text',
        "the session is closed; open another one",
        "onnxruntime is 7; give a text",
        'threads is "x"; give a whole number of 0 to 4096',
    ]
    assert [message.startswith(start) for message, start in zip(result, beginnings, strict=True)] == [True] * 9, result


def test_what_is_no_prompt_and_no_number_is_one_line(script: Script) -> None:
    result = script("""
        const lines = [];
        const tokens = [1.5, "1", undefined, NaN, 2n ** 64n + 5n, 2 ** 60, -1].map((token) => [token]);
        for (const prompt of [undefined, null, "1", 7, {}, ...tokens])
            lines.push(await refusal(() => session.generate(prompt, { maxNewTokens: 1 })));
        for (const maxNewTokens of [-1, 0.5, NaN, "4", null, -Infinity, 4n])
            lines.push(await refusal(() => session.generate([1], { maxNewTokens })));
        for (const threads of [4097, 2 ** 31, 2 ** 40, -1, 0.5])
            lines.push(await refusal(() => open("x", { threads })));
        for (const text of [7, undefined])
            lines.push(await refusal(() => session.streamText(text).next()));
        const answer = await session.generate(cases[0][0], null);
        return [...lines, answer.tokens.length];
    """)
    assert result.pop() == 128
    assert [result.pop(), result.pop()] == ["the prompt is undefined; give a text", "the prompt is 7; give a text"]
    prompts, counts, threads = result[:12], result[12:19], result[19:]
    assert all(
        line.startswith("the prompt is ") and line.endswith("give an array of token ids") for line in prompts[:5]
    )
    assert all(line.startswith("the prompt has token ") and "; " in line for line in prompts[5:])
    assert all(line.startswith("maxNewTokens is ") and line.endswith("number of 1 or more") for line in counts)
    assert all(line.endswith("; give a whole number of 0 to 4096") for line in threads)


def test_more_tokens_than_the_context_has_fill_it_and_typed_arrays_are_prompts(script: Script) -> None:
    result = script("""
        const [prompt] = cases[0];
        const lengths = [];
        for (const maxNewTokens of [2 ** 31 - 1, 2 ** 31, 2 ** 53, 1e300, Infinity])
            lengths.push((await session.generate(prompt, { maxNewTokens, recipe: "prompt-lookup" })).tokens.length);
        const typed = await session.generate(Int32Array.from(prompt), { maxNewTokens: 4 });
        const big = await session.generate(BigInt64Array.from(prompt, BigInt), { maxNewTokens: 4 });
        return [lengths, typed.tokens, big.tokens];
    """)
    (length, *others), typed, big = result
    assert others == [length] * 4 and length > 32
    assert typed == big == CASES[0].token_ids[:4]


def test_an_answer_that_waits_for_a_thread_is_cancelled_too(script: Script) -> None:
    """Libuv has four threads, so the fifth answer waits."""
    result = script("""
        const [prompt] = cases[0];
        const sessions = cases.concat(cases, cases).map(() => model.session());
        const work = sessions.map((each) => each.generate(prompt, { maxNewTokens: 200, recipe: "plain" }));
        for (const each of sessions) each.cancel();
        const lengths = (await Promise.all(work)).map(({ tokens }) => tokens.length);
        const again = await sessions[0].generate(prompt, { maxNewTokens: 32 });
        return [lengths, again.tokens];
    """)
    whole = 200
    assert all(length < whole for length in result[0]) and result[1] == CASES[0].token_ids


def test_closing_twice_and_while_an_answer_is_decoded_waits_for_its_step(script: Script) -> None:
    result = script("""
        const [prompt] = cases[0];
        const other = await open(folder, { threads: 1 });
        const each = other.session();
        const seen = [];
        for await (const step of each.stream(prompt, { maxNewTokens: 200, recipe: "plain" })) {
            seen.push(...step);
            void each.close();
        }
        const answer = other.session().generate(prompt, { maxNewTokens: 200, recipe: "plain" });
        await Promise.all([other.close(), other.close()]);
        const { tokens } = await answer;
        const closed = await refusal(() => other.session());
        return [seen.length, tokens.length, closed];
    """)
    assert result[0] < 200 and result[1] < 200
    assert result[2] == "the model is closed; open the bundle again"


def test_text_is_that_of_the_tokens(script: Script) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(FROZEN / "tokenizer.json"))
    result = script("""
        const text = await model.text();
        const pieces = [];
        for await (const piece of session.streamText("Ünïcode: def wrap(", { maxNewTokens: 24 })) pieces.push(piece);
        const ids = text.encode("Ünïcode: def wrap(");
        const { tokens } = await model.session().generate(ids, { maxNewTokens: 24 });
        return { ids, tokens, text: pieces.join(""), pieces: pieces.length };
    """)
    prompt: list[int] = tokenizer.encode("Ünïcode: def wrap(").ids
    assert result["ids"] == prompt
    assert "Ünïcode: def wrap(" + result["text"] == tokenizer.decode([*prompt, *result["tokens"]])
    assert result["pieces"] > 1


def test_a_tokenizer_that_was_changed_since_the_bundle_was_opened_is_refused(script: Script, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    line = script(f"""
        const {{ appendFile }} = await import("node:fs/promises");
        const other = await open({json.dumps(str(bundle))}, {{ threads: 1 }});
        await appendFile({json.dumps(str(bundle / "tokenizer.json"))}, " ");
        const line = await refusal(() => other.text());
        await other.close();
        return line;
    """)
    assert line.startswith(f"tokenizer.json of {bundle} has ") and line.endswith("; copy the bundle again")


def test_an_answer_that_is_cancelled_before_its_prompt_is_read_has_no_tokens_and_the_session_goes_on(
    script: Script,
) -> None:
    """The first request of a model loads engines, so it is cancelled before a call."""
    result = script("""
        const [prompt, golden] = cases[1];
        const options = { maxNewTokens: golden.length, recipe: "plain" };
        const seen = [];
        for (const decode of ["generate", "stream"]) {
            const other = await open(folder, { threads: 1 });
            const each = other.session();
            const answer = each[decode](prompt, options);
            const next = decode === "stream" ? answer.next() : answer;
            each.cancel();
            const { tokens = [], stats, done = true, value } = await next;
            const again = (await each.generate(prompt, options)).tokens;
            seen.push({ tokens, stats: stats ?? value, done, again });
            await other.close();
        }
        return seen;
    """)
    for answer in result:
        assert (answer["tokens"], answer["done"], answer["again"]) == ([], True, CASES[1].token_ids)
        assert (answer["stats"]["newTokens"], answer["stats"]["targetCalls"]) == (0, 0)
        assert answer["stats"]["recipe"] == "plain" and answer["stats"]["meanAcceptanceLength"] == 1


@pytest.mark.slow
def test_the_types_are_those_of_the_functions(package: Path) -> None:
    result = subprocess.run(["npm", "run", "types"], cwd=package, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
