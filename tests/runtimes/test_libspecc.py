"""libspecc replays golden outputs, and refuses what it cannot use in one line."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libspecc
import pytest
from libspecc import RECIPES, LibraryError, Model, Session
from shell import copied, edit_golden, edit_manifest

import specc
from specc.exactness.golden import Case, read_cases
from specc.exactness.replay import prove
from specc.runtime.sampling_defaults import PLAIN_GREEDY

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "bundles" / "schema-3"
OLD = ROOT / "tests" / "bundles" / "schema-2"
CASES = read_cases(FROZEN / "golden.jsonl")
COPIES = {"num_speculative_tokens": 3, "prompt_lookup_num_tokens": 4}
RIGHT = {"num_speculative_tokens": 3, "assistant_confidence_threshold": 0.0}
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]


@pytest.fixture(scope="module")
def frozen() -> Iterator[Model]:
    opened = Model(FROZEN)
    yield opened
    opened.close()


@pytest.fixture
def session(frozen: Model) -> Iterator[Session]:
    opened = Session(frozen)
    yield opened
    opened.close()


def refusal(bundle: Path) -> str:
    """Return the line by which libspecc refuses a bundle."""
    with pytest.raises(LibraryError) as error:
        Model(bundle)
    return str(error.value)


def test_it_names_the_recipes_that_it_has(frozen: Model) -> None:
    assert frozen.recipes() == list(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_outputs_are_identical(recipe: str, session: Session) -> None:
    for case in CASES:
        answer, stats = session.generate(case.prompt_ids, len(case.token_ids), recipe)
        assert answer == case.token_ids
        assert (stats.recipe, stats.new_tokens) == (recipe.encode(), len(answer))
        assert (stats.mean_acceptance_length > 1) == (stats.accepted > 0)


@pytest.mark.model
def test_every_recipe_of_a_new_bundle_is_identical(model: Path, tmp_path: Path) -> None:
    from quick_compile import compile_quickly

    from specc.backends import Options as BuildOptions
    from specc.compiler import Options

    output = tmp_path / "new.specc"
    recipes = ("prompt-lookup", "recycled-lookup", "token-recycling", "layer-skip", "quantized-self-draft", "cascade")
    build = BuildOptions("fast")  # libspecc has no operators of specc-kernels
    compile_quickly(Options(model=str(model), output=output, recipes=recipes, golden_tokens=24, build=build))
    opened = Model(output)
    assert opened.recipes() == ["plain", *recipes]
    session = Session(opened)
    for recipe in opened.recipes():
        for case in read_cases(output / "golden.jsonl"):
            assert session.generate(case.prompt_ids, len(case.token_ids), recipe)[0] == case.token_ids
    session.close()
    opened.close()


def test_a_bundle_of_schema_2_is_replayed() -> None:
    opened = Model(OLD)
    session = Session(opened)
    for case in read_cases(OLD / "golden.jsonl"):
        assert session.generate(case.prompt_ids, len(case.token_ids), "prompt-lookup")[0] == case.token_ids
    session.close()
    opened.close()


@pytest.mark.parametrize("recipe", RECIPES[1:])
def test_drafts_are_those_of_the_python_runtime(recipe: str, session: Session) -> None:
    assert_same_drafts(session, FROZEN, recipe)


@pytest.mark.parametrize(
    ("recipe", "drafter", "parameters"),
    [
        ("eagle3-tree", "eagle-lookup", {"max_depth": 3, "match_rates": [0.15, 0.4, 0.7, 0.8]}),
        ("eagle3-tree", "eagle-lookup", {"match_rates": [1.0]}),
        ("eagle3", "eagle-cascade", COPIES | {"max_matching_ngram_size": 3, "min_matching_ngram_size": 2}),
        ("eagle3", "eagle-cascade", COPIES | {"max_matching_ngram_size": 6, "min_matching_ngram_size": 6}),
        ("eagle3-tree", "eagle-tree", {"step_costs": [[1, 1.0], [4, 1.2], [6, 1.3], [12, 1.9]]}),
        ("early-exit", "static-tree", {}),
    ],
)
def test_drafts_by_other_parameters_are_those_of_the_python_runtime(
    recipe: str, drafter: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        (entry,) = [each for each in manifest["recipes"] if each["name"] == recipe]
        entry["drafter"] = drafter
        entry["parameters"] |= parameters

    bundle = edit_manifest(copied(FROZEN, tmp_path), edit)
    opened = Model(bundle)
    session = Session(opened)
    assert_same_drafts(session, bundle, recipe)
    session.close()
    opened.close()


def assert_same_drafts(session: Session, bundle: Path, recipe: str) -> None:
    """Check counts of whole answers: as many drafts, drafted tokens and accepted ones, and some accepted ones."""
    conversation, accepted = specc.load(bundle).conversation, 0
    for case in CASES:
        answer, stats = session.generate(case.prompt_ids, len(case.token_ids), recipe)
        expected = conversation.generate(
            case.prompt_ids, len(case.token_ids), recipe=recipe, guard=False, **PLAIN_GREEDY
        ).stats
        assert (answer, stats.recipe) == (case.token_ids, recipe.encode())
        assert (stats.drafts, stats.drafted, stats.accepted) == (expected.drafts, expected.drafted, expected.accepted)
        accepted += stats.accepted
    assert accepted > 0


def test_a_recipe_without_its_drafter_is_replaced_and_named(session: Session) -> None:
    answer, stats = session.generate(CASES[0].prompt_ids, 8, "lookahead")
    assert answer == CASES[0].token_ids[:8]
    assert stats.recipe != b"lookahead"


def test_a_version_of_a_drafter_that_it_lacks_is_another_drafter(tmp_path: Path) -> None:
    def renew(manifest: dict[str, Any]) -> None:
        manifest["recipes"][1]["drafter_version"] = 2

    opened = Model(edit_manifest(copied(FROZEN, tmp_path), renew))
    assert "prompt-lookup" not in opened.recipes() and "layer-skip" in opened.recipes()
    opened.close()


def test_a_parameter_that_it_lacks_is_another_drafter_unless_its_value_changes_nothing(tmp_path: Path) -> None:
    for parameters in ({"novelty": 1}, {"rejection_threshold": 0.5}, {"margin_threshold": 0.1}):
        bundle = edit_manifest(
            copied(FROZEN, tmp_path / next(iter(parameters))),
            lambda m, values=parameters: [r["parameters"].update(values) for r in m["recipes"][1:]],  # type: ignore[misc]
        )
        opened = Model(bundle)
        assert opened.recipes() == ["plain"]
        opened.close()
    neutral = {"rejection_threshold": 1.0, "num_assistant_tokens_schedule": "constant"}
    opened = Model(edit_manifest(bundle, lambda m: [r.update(parameters=RIGHT | neutral) for r in m["recipes"][2:3]]))
    assert opened.recipes() == ["plain", "layer-skip"]
    opened.close()


def test_tokens_come_step_by_step_and_the_callback_can_end_the_answer(session: Session) -> None:
    steps: list[list[int]] = []

    def take(tokens: list[int]) -> bool:
        steps.append(tokens)
        return len(steps) < 3

    answer, stats = session.generate(CASES[1].prompt_ids, 32, "plain", take)
    assert [len(step) for step in steps] == [1, 1, 1]
    assert answer == CASES[1].token_ids[:3] and stats.new_tokens == 3


def test_a_session_that_decodes_refuses_another_answer_and_goes_on(session: Session) -> None:
    refusals: list[str] = []

    def take(tokens: list[int]) -> bool:
        for generate in (session.generate, session.generate_all):
            with pytest.raises(LibraryError) as error:
                generate(CASES[0].prompt_ids, 4, "plain")
            refusals.append(str(error.value))
        return True

    answer, _ = session.generate(CASES[1].prompt_ids, 8, "plain", take)
    assert answer == CASES[1].token_ids[:8] and len(refusals) == 16
    assert set(refusals) == {"the session decodes another answer; wait for its end, or open another session"}


def test_an_answer_can_come_in_one_piece(session: Session) -> None:
    for case in CASES[:2]:
        assert session.generate_all(case.prompt_ids, 1 << 40, "prompt-lookup")[: len(case.token_ids)] == case.token_ids
    with pytest.raises(LibraryError, match="the bundle has no recipe 'plai'"):
        session.generate_all([1], 4, "plai")


def test_another_thread_can_cancel(session: Session) -> None:
    began = threading.Event()

    def take(tokens: list[int]) -> bool:
        began.set()
        return True

    def cancel() -> None:
        began.wait()
        session.cancel()

    threading.Thread(target=cancel).start()
    answer, _ = session.generate(CASES[1].prompt_ids, 200, "plain", take)
    assert answer[: len(CASES[1].token_ids)] == CASES[1].token_ids[: len(answer)]


@pytest.mark.parametrize(
    ("recipe", "call", "tokens"),
    [
        *(("plain", call, 0) for call in (1, 2, 3)),  # The prompt takes four calls of 64 tokens.
        *(("plain", call, call - 3) for call in (4, 5)),
        *(("eagle3", call, 1) for call in (5, 6, 7)),  # The head reads the prompt, too.
    ],
)
def test_a_cancelled_answer_ends_after_the_call_that_runs_and_rows_of_its_calls_serve_again(
    recipe: str, call: int, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = str(libspecc.built() / "libspecc-stub.so")
    monkeypatch.setattr(libspecc, "onnxruntime_library", lambda: stub)
    # No token of the stub ends an answer.
    model = Model(edit_manifest(copied(FROZEN, tmp_path), lambda m: m["model"].update(eos_token_ids=[8])))
    session, runs = Session(model), 0

    def count() -> None:
        nonlocal runs
        runs += 1
        if runs == call:
            session.cancel()

    on_run = ctypes.CFUNCTYPE(None)(count)
    prompt = [5] * 200
    hook = ctypes.c_void_p.in_dll(ctypes.CDLL(stub), "specc_stub_on_run")
    hook.value = ctypes.cast(on_run, ctypes.c_void_p).value
    try:
        answer, stats = session.generate(prompt, 20, recipe)
        assert (runs, len(answer), stats.new_tokens, stats.error) == (call, tokens, tokens, b"")
        assert stats.recipe == recipe.encode() and stats.prefill_seconds > 0
        assert session.generate_all(prompt, 1, "plain")
        assert runs == max(4, call) + (call >= 4), "the last token runs again, since its outputs are wanted"
    finally:
        hook.value = None
        session.close()
        model.close()


def test_sessions_of_one_model_run_at_once(frozen: Model) -> None:
    answers: dict[int, list[int]] = {}

    def decode(number: int) -> None:
        session = Session(frozen)
        answers[number] = session.generate(CASES[number].prompt_ids, 32, "prompt-lookup")[0]
        session.close()

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(len(CASES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(len(CASES))] == [case.token_ids for case in CASES]


def test_a_second_turn_uses_the_rows_of_the_first(session: Session) -> None:
    first, _ = session.generate(CASES[0].prompt_ids, 8, "plain")
    longer = [*CASES[0].prompt_ids, *first]
    expected = CASES[0].token_ids[8:16]
    assert session.generate(longer, 8, "quantized-self-draft")[0] == expected
    other = Case("", CASES[2].prompt_ids, CASES[2].token_ids, CASES[2].gaps)
    assert session.generate(other.prompt_ids, 8, "plain")[0] == other.token_ids[:8]


@pytest.mark.parametrize(
    ("prompt", "count", "recipe", "message"),
    [
        ([], 4, None, "the prompt has 0 tokens; give 1 to "),
        ([1] * 100000, 4, None, "the prompt has 100000 tokens; give 1 to "),
        ([-1], 4, None, "the prompt has token -1; the vocabulary has 0 to "),
        ([1 << 40], 4, None, "the prompt has token 1099511627776; the vocabulary has 0 to "),
        ([1], 0, None, "max_new_tokens is 0; give 1 or more"),
        ([-(2**63)], 4, None, "the prompt has token -9223372036854775808; the vocabulary has 0 to "),
        ([1], 4, "plai", "the bundle has no recipe 'plai', only plain, "),
    ],
)
def test_bad_requests_are_one_line(prompt: list[int], count: int, recipe: str, message: str, session: Session) -> None:
    with pytest.raises(LibraryError) as error:
        session.generate(prompt, count, recipe)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_reason_is_written_where_a_caller_on_another_thread_reads_it(session: Session) -> None:
    stats, prompt, nothing = libspecc.Stats(), (ctypes.c_int64 * 1)(1), libspecc.ON_TOKENS(lambda *_: 0)
    arguments = (session.handle, prompt, 1, b"plai", 4, nothing, None, stats)
    assert libspecc.library().specc_generate(*arguments) != 0
    assert stats.error.startswith(b"the bundle has no recipe 'plai', only plain, ")
    reason, handle = ctypes.create_string_buffer(16), ctypes.c_void_p()
    options = libspecc.Options(None, 1, ctypes.cast(reason, ctypes.c_char_p), len(reason))
    assert libspecc.library().specc_open(b"/nowhere", options, handle) != 0
    assert reason.value == b"cannot read /no"


@pytest.mark.parametrize("count", [2**64 - 1, 2**64 - 5, 2**63, 2**31, 300])
def test_more_tokens_than_the_context_has_fill_it(count: int, session: Session) -> None:
    prompt, context = CASES[0].prompt_ids, specc.load(FROZEN).bundle.manifest.model.context
    python = specc.load(FROZEN).generate(prompt, min(count, 2**63), recipe="prompt-lookup", **PLAIN_GREEDY)
    answer, stats = session.generate(prompt, count, "prompt-lookup")
    assert answer == python.token_ids == session.generate_all(prompt, count, "plain")
    assert stats.new_tokens == len(answer) <= context - len(prompt)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**61, 2**32])
def test_a_length_of_a_prompt_beyond_memory_is_refused_before_it_is_read(length: int, session: Session) -> None:
    stats, prompt, tokens = libspecc.Stats(), (ctypes.c_int64 * 1)(1), ctypes.POINTER(ctypes.c_int64)()
    arguments = (session.handle, prompt, length, None, 4)
    for status in (
        libspecc.library().specc_generate(*arguments, libspecc.ON_TOKENS(lambda *_: 0), None, stats),
        libspecc.library().specc_generate_all(*arguments, tokens, stats),
    ):
        assert status and stats.error.startswith(f"the prompt has {length} tokens; give 1 to ".encode())
    assert not tokens


@pytest.mark.parametrize("threads", [-1, -(2**31), 4097, 2**31 - 1])
def test_a_number_of_threads_that_no_machine_has_is_refused(threads: int) -> None:
    with pytest.raises(LibraryError, match=f"^threads is {threads}; give 0 to 4096$"):
        Model(FROZEN, threads)


def test_places_that_are_missing_are_one_line_and_a_failure_leaves_null(frozen: Model, session: Session) -> None:
    library, nothing, handle = libspecc.library(), libspecc.ON_TOKENS(), ctypes.c_void_p(1)
    stats, prompt, tokens = libspecc.Stats(), (ctypes.c_int64 * 1)(1), ctypes.POINTER(ctypes.c_int64)()
    calls = {
        "specc_open needs a path": library.specc_open(None, None, handle),
        "specc_session_open needs a model": library.specc_session_open(None, handle),
    }
    assert all(calls.values()) and not handle
    for status, message in (
        (lambda: library.specc_open(b"x", None, None), "specc_open needs a path"),
        (lambda: library.specc_open(b"", None, handle), "specc_open needs a path"),
        (lambda: library.specc_session_open(frozen.handle, None), "specc_session_open needs a model"),
        (lambda: library.specc_generate(None, prompt, 1, None, 4, nothing, None, stats), "specc_generate needs"),
        (
            lambda: library.specc_generate(session.handle, None, 1, None, 4, nothing, None, stats),
            "specc_generate needs",
        ),
        (
            lambda: library.specc_generate_all(session.handle, prompt, 1, None, 4, None, stats),
            "specc_generate_all needs",
        ),
        (
            lambda: library.specc_generate_all(session.handle, prompt, 1, None, 4, tokens, None),
            "specc_generate_all needs",
        ),
    ):
        assert status() and library.specc_error().decode().startswith(message)
    library.specc_session_close(None)
    library.specc_close(None)
    library.specc_cancel(None)
    assert library.specc_recipe(None, 0) is None and library.specc_recipe(frozen.handle, 2**64 - 1) is None
    assert library.specc_generate(session.handle, prompt, 1, None, 4, nothing, None, None) == 0


def test_a_session_that_its_own_callback_closes_lives_until_the_answer_has_ended(frozen: Model) -> None:
    session = Session(frozen)

    def take(tokens: list[int]) -> bool:
        session.close()
        with pytest.raises(LibraryError, match="the session decodes another answer"):
            session.generate([1], 1)
        return True

    answer, stats = session.generate(CASES[0].prompt_ids, 32, "plain", take)
    assert answer == CASES[0].token_ids[:1] and stats.new_tokens == 1


def test_closing_a_session_ends_the_answer_of_another_thread_and_waits_for_it(frozen: Model) -> None:
    session, first_step = Session(frozen), threading.Event()

    def take(tokens: list[int]) -> bool:
        first_step.set()
        return True

    answers: list[list[int]] = []
    thread = threading.Thread(
        target=lambda: answers.append(session.generate(CASES[0].prompt_ids, 200, "plain", take)[0])
    )
    thread.start()
    first_step.wait()
    session.close()
    thread.join()
    assert 1 <= len(answers[0]) <= 200
    assert answers[0][:32] == CASES[0].token_ids[: len(answers[0])]


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "decode.onnx", "golden.jsonl"])
def test_a_changed_or_missing_file_is_named(name: str, tmp_path: Path) -> None:
    file = copied(FROZEN, tmp_path) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert name in refusal(file.parent)
    file.unlink()
    assert name in refusal(file.parent)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema=4), "the bundle has schema 4, and this library reads 2 and 3; use a newer library"),
        (
            lambda m: m.update(schema=1),
            "the bundle has schema 1, and this library reads 2 and 3; compile the bundle again",
        ),
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "'../x', which is not inside the bundle"),
        (
            lambda m: m.update(engines=[]),
            "the bundle has no engine 'decode', which recipe plain names; compile it again",
        ),
        (lambda m: m["caches"].pop("target"), "the bundle has no cache 'target', which engine "),
        (lambda m: m["engines"][0].update(weights="w"), "the bundle has no file 'w', which engine "),
        (
            lambda m: m.update(default_recipe="x"),
            "the bundle has no recipe 'x', which default_recipe names; compile it",
        ),
        (lambda m: m["recipes"][1].update(verify=["x"]), "the bundle has no engine 'x', which recipe "),
        (
            lambda m: m["engines"][0]["block"].update(topology={"parents": [-1, 1]}),
            "has the parent 1, which makes no tree",
        ),
        (lambda m: m["engines"][0].update(needs={"specc::Linear": "1"}), "needs specc::Linear, which libspecc has not"),
        (lambda m: m.pop("caches"), "caches"),
        (
            lambda m: m["engines"][0]["inputs"][0].update(shape=[1, 1 << 62]),
            "has the size 4611686018427387904; sizes are 1 to",
        ),
        (lambda m: m["engines"][0]["inputs"][0].update(shape=[1 << 30] * 3), "input_ids is larger than any memory"),
        (lambda m: m["caches"]["target"].update(capacity=0), "has the size 0; sizes are 1 to"),
        (
            lambda m: m["engines"][0]["outputs"].append({"name": "ids", "dtype": "int64", "shape": [1, 1]}),
            "has ids twice",
        ),
    ],
)
def test_a_manifest_that_it_cannot_use_is_one_line(edit: Any, message: str, tmp_path: Path) -> None:
    bundle = edit_manifest(copied(FROZEN, tmp_path), edit)
    try:
        model = Model(bundle)
        session = Session(model)
        session.generate([1, 2], 2)
    except LibraryError as e:
        assert message in str(e) and "\n" not in str(e)
    else:
        raise AssertionError("the bundle was not refused")


def test_a_library_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libspecc, "onnxruntime_library", lambda: "/nowhere/libonnxruntime.so")
    assert refusal(FROZEN).startswith("cannot open ONNX Runtime at /nowhere/libonnxruntime.so (")
    monkeypatch.setattr(libspecc, "onnxruntime_library", lambda: "libc.so.6")
    assert "is not ONNX Runtime's library" in refusal(FROZEN)


def test_the_program_replays_and_its_status_says_how(tmp_path: Path) -> None:
    def replay(bundle: Path) -> subprocess.CompletedProcess[str]:
        command = [str(libspecc.built() / "specc-replay"), str(bundle)]
        return subprocess.run(command, env=libspecc.environment(), capture_output=True, text=True)

    whole = replay(FROZEN)
    assert "lookahead              not replayed: libspecc lacks drafter lookahead, version 1, with" in whole.stdout
    assert whole.returncode == 0 and whole.stdout.count("4 identical, 0 near-tie, 0 diverged") == len(RECIPES)
    other = edit_golden(copied(FROZEN, tmp_path), lambda cases: cases[0]["token_ids"].__setitem__(2, 0))
    assert replay(other).returncode == 1
    empty = edit_golden(other, lambda cases: cases.clear())
    result = replay(empty)
    assert result.returncode == 2 and result.stderr.endswith("there are no golden cases; compile the bundle again\n")
    assert replay(tmp_path / "nothing").returncode == 2


def test_specc_test_runs_it() -> None:
    proof = prove(FROZEN, runtime=str(libspecc.built() / "specc-replay"))
    assert proof.passed and len(proof.replayed) == len(RECIPES) * len(CASES)
    others = {recipe.name for recipe in proof.bundle.manifest.recipes} - set(RECIPES)
    assert proof.left_out.keys() == others
    assert proof.left_out["lookahead"] == (
        "libspecc lacks drafter lookahead, version 1, with rule match, version 1, "
        "and parameters max_candidates, ngram_size, window_size"
    )
    assert {row.recipe: row.mean_acceptance_length > 1 for row in proof.rows()}["prompt-lookup"]


def test_huge_pages_are_for_memory_that_is_new() -> None:
    result = subprocess.run([str(libspecc.built() / "specc-huge-pages")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("", "nlohmann-json 3.10 or newer is not installed; install it, or"),
        ("/nowhere", "/nowhere, which has no nlohmann/"),
    ],
)
def test_a_build_without_the_headers_of_json_says_how_to_give_them(include: str, message: str, tmp_path: Path) -> None:
    libspecc.built()  # It is skipped where nothing can be built.
    command = ["cmake", "-S", str(ROOT / "runtimes" / "c"), "-B", str(tmp_path), f"-DSPECC_JSON_INCLUDE={include}"]
    command += ["-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode and " ".join(result.stderr.split()).count(message) == 1, result.stderr


def test_the_program_in_the_readme_decodes_and_ends_with_status_2_where_it_cannot(tmp_path: Path) -> None:
    folder, program = libspecc.built(), tmp_path / "program"
    readme = (ROOT / "runtimes" / "c" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "main.c").write_text(readme.partition("```c\n")[2].partition("```")[0])
    options = [f"-I{ROOT / 'runtimes' / 'c' / 'include'}", f"-L{folder}", f"-Wl,-rpath,{folder}", "-Wall", "-Werror"]
    subprocess.run(["cc", str(tmp_path / "main.c"), *options, "-lspecc", "-o", str(program)], check=True)

    def run() -> tuple[int, int, str]:
        result = subprocess.run([program], cwd=tmp_path, env=libspecc.environment(), capture_output=True, text=True)
        return result.returncode, len(result.stdout.split()), result.stderr[:19]

    assert run() == (2, 0, "error: cannot read ")
    (tmp_path / "model.specc").symlink_to(FROZEN)
    status, tokens, errors = run()
    assert (status, errors) == (0, "") and 0 < tokens <= 64


def test_another_program_finds_the_library_by_cmake(tmp_path: Path) -> None:
    folder, prefix = libspecc.built(), tmp_path / "prefix"
    subprocess.run(["cmake", "--install", str(folder), "--prefix", str(prefix)], check=True, capture_output=True)
    variables = {name: value for name, value in libspecc.environment().items() if name != "LD_LIBRARY_PATH"}
    for place in (prefix, tmp_path / "moved"):
        if place != prefix:
            prefix.rename(place)
        replay = subprocess.run([place / "bin" / "specc-replay", FROZEN], env=variables, capture_output=True, text=True)
        assert (replay.returncode, replay.stderr) == (0, "")
    place.rename(prefix)
    (tmp_path / "main.c").write_text(
        "#include <specc.h>\n#include <stdio.h>\nint main(void) { puts(specc_version()); return 0; }\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(user C CXX)\nfind_package(specc REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user specc::specc)\n"
    )
    build = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={prefix}"]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "build")], check=True, capture_output=True)
    result = subprocess.run([str(tmp_path / "build" / "user")], capture_output=True, text=True)
    assert result.stdout == "0.1.0\n"
