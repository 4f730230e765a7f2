"""The verbs: what they print, what they refuse, and how they end."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shell import command, copied, edit_manifest, refused, specc
from tiny import save_model

from specc import __version__, load
from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import MANIFEST, open_bundle
from specc.runtime.errors import BundleError

VERBS = ("compile", "generate", "test", "show", "recipes", "bench")
PROMPT = "def wrap(text, width=70):\n"
GENERATED = {
    "text", "token_ids", "finish_reason", "recipe", "lossless", "prompt_tokens", "new_tokens", "prefill_seconds",
    "seconds", "tokens_per_second", "mean_acceptance_length", "draft_acceptance_rate", "acceptance_histogram",
    "num_drafts", "num_draft_tokens", "num_accepted_tokens", "target_calls", "draft_calls", "overhead_fraction",
}  # fmt: skip


def test_the_version() -> None:
    assert specc("--version").out == f"specc {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_in_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = specc(verb, "--help").out
    assert f"  Examples:\n    specc {verb}" in out
    assert max(map(len, out.splitlines())) <= 80
    assert verb in specc("--help").out


@pytest.mark.parametrize(
    "argv", [("frobnicate",), ("generate",), ("generate", "b", "--tempratur", "1"), ("compile", "m")]
)
def test_a_wrong_usage_is_status_2(argv: tuple[str, ...]) -> None:
    ran = specc(*argv)
    assert ran.status == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = "torch transformers onnx onnxruntime onnxscript tokenizers safetensors numpy jinja2"
    code = f"import sys, specc.cli; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("early-exit", "is not RECIPE.PARAMETER=VALUE"),
        ("tree=3", "is not RECIPE.PARAMETER=VALUE"),
        ("early-exi.tree=3", "no recipe 'early-exi'; did you mean 'early-exit'?"),
        ("early-exit.tre=3", "no parameter 'tre'; did you mean 'tree'?"),
        ("early-exit.tree=[(0,)", "'[(0,)' is no Python literal"),
        ("early-exit.tree=open('x')", "is no Python literal"),
    ],
)
def test_a_bad_setting_is_refused(setting: str, said: str) -> None:
    assert said in refused("compile", "model", "-o", "out", "--set", setting)


@pytest.mark.parametrize(
    ("literal", "said"),
    [
        ("[(0,), (0, 1)]", "path [0, 1] needs path [0, 0]; add it"),
        ("[(1,)]", "path [1] needs path [0]; add it"),
        ("[(0,), (0,)]", "path [0] is written twice"),
        ("[0, 1]", "not a tree"),
        ("[('a',)]", "not a tree"),
        ("[()]", "not a tree"),
        ("7", "not a tree"),
        ("[(0,", "is no Python literal"),
    ],
)
def test_a_literal_that_is_no_tree_is_refused(literal: str, said: str) -> None:
    assert said in refused("compile", "model", "-o", "out", "--tree", literal)


def test_layers_that_are_no_numbers_are_refused() -> None:
    assert "--skip-layers '3,x' is no list of layers" in refused(
        "compile", "model", "-o", "out", "--skip-layers", "3,x"
    )


@pytest.mark.parametrize("verb", ["generate", "test", "show", "bench"])
def test_a_missing_bundle_is_refused(verb: str, tmp_path: Path) -> None:
    prompt = ["--prompt", "a"] if verb == "generate" else []
    assert refused(verb, tmp_path / "none", *prompt).startswith(f"no bundle at {tmp_path / 'none'}; make one with")
    assert f"{tmp_path} has no manifest.json" in refused(verb, tmp_path, *prompt)


@pytest.mark.model
class TestCompile:
    def test_json(self, model: Path, tmp_path: Path) -> None:
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text('{"prompt": "import"}\n')
        argv = ["-o", tmp_path / "m.specc", "--recipe", "prompt-lookup", "--prompt-lookup-num-tokens", 3]
        more = ["--prompts", prompts, "--golden-tokens", 5, "--max-seq-len", 64, "--dump-graphs", tmp_path / "graphs"]
        told = specc("compile", model, *argv, *more, "--json").json
        assert told["bundle"] == str(tmp_path / "m.specc")
        assert told.keys() >= {"weights_bytes", "default_recipe", "seconds", "peak_rss_bytes", "recipes"}
        chains = {f"verify-chain-{n}": n for n in WIDTHS.curve} | {"decode": 1}
        assert {e["name"]: e["slots"] for e in told["engines"]} == chains | {"prefill": 64}
        assert {e["file"] for e in told["engines"] if e["name"] in chains} == {"decode.onnx"}
        assert all(e.keys() == {"name", "slots", "layers", "file", "bytes", "backend"} for e in told["engines"])
        assert [r["recipe"] for r in told["recipes"]] == ["plain", "prompt-lookup"]
        assert list((tmp_path / "graphs").glob("*/*.py"))
        refusal = refused("compile", model, *argv)
        assert refusal == f"{tmp_path / 'm.specc'} exists; choose another output, or replace it with --overwrite"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--recipe", "early-exi"), "no recipe 'early-exi'; did you mean 'early-exit'?"),
            (("--recipe", "draft-model"), "needs a draft model; name one with --assistant-model"),
            (("--recipe", "prompt-lookup", "--set", "early-exit.tree=None"), "add --recipe early-exit"),
            (("--recipe", "prompt-lookup", "--assistant-early-exit", "2"), "no compiled recipe has a parameter"),
            (("--recipe", "early-exit", "--assistant-early-exit", "3", "--golden-tokens", "1"), "give 1..2"),
            (("--prompts", "/nowhere"), "cannot read prompts from /nowhere"),
            (("--max-seq-len", "1000"), "give 16..256"),
        ],
    )
    def test_what_cannot_be_compiled_leaves_nothing(
        self, options: tuple[str, ...], said: str, model: Path, tmp_path: Path
    ) -> None:
        assert said in refused("compile", model, "-o", tmp_path / "m.specc", *options)
        assert list(tmp_path.iterdir()) == []

    def test_a_model_without_tokenizer_is_refused(self, model: Path, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        shutil.copytree(model, bare, ignore=shutil.ignore_patterns("tokenizer*"))
        assert "tokenizer" in refused("compile", bare, "-o", tmp_path / "m.specc")
        assert list(tmp_path.iterdir()) == [bare]

    def test_a_draft_model_of_another_vocabulary_is_refused(self, model: Path, tmp_path: Path) -> None:
        other = save_model(tmp_path / "other", vocab_size=600)
        argv = ("--recipe", "draft-model", "--assistant-model", other, "--golden-tokens", 1)
        assert "must share the target's tokenizer" in refused("compile", model, "-o", tmp_path / "m.specc", *argv)

    def test_a_full_disk_is_one_line_and_leaves_nothing(self, model: Path, tmp_path: Path) -> None:
        def little() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain")
        ran = subprocess.run(argv, capture_output=True, text=True, preexec_fn=little)
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert ran.stderr.splitlines()[-1].startswith("specc: error: cannot write")
        assert "Traceback" not in ran.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_killed_compile_leaves_nothing(
        self, sent: signal.Signals, status: int, model: Path, tmp_path: Path
    ) -> None:
        argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain")

        def heed() -> None:
            signal.signal(sent, signal.SIG_DFL)  # or a background job would ignore SIGINT, and so would its children

        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
        # Python itself dies of the signal, which shells call 130 too, where it came while a string was executed
        assert process.returncode in (status, -sent), err
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == []

    def test_what_a_compile_leaves_that_could_do_nothing_more_goes_with_the_next(
        self, model: Path, tmp_path: Path
    ) -> None:
        argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain")
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(tmp_path.glob(".m.specc.*")):
            time.sleep(0.05)
        refused("compile", tmp_path, "-o", tmp_path / "m.specc")
        assert list(tmp_path.glob(".m.specc.*"))  # it lives
        process.kill()
        process.wait(60)
        assert list(tmp_path.glob(".m.specc.*"))
        refused("compile", tmp_path, "-o", tmp_path / "m.specc")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.model
class TestGenerate:
    def test_json(self, bundle: Path) -> None:
        told = specc("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--json").json
        assert told.keys() >= GENERATED
        assert told["new_tokens"] == len(told["token_ids"]) == 20
        assert told["finish_reason"] == "length"
        assert told["recipe"] == open_bundle(bundle).manifest.default_recipe

    def test_text_to_stdout_and_a_summary_to_stderr(self, bundle: Path) -> None:
        argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--recipe", "early-exit")
        ran = specc(*argv)
        assert ran.status == 0
        assert ran.out.removesuffix("\n") == specc(*argv, "--json").json["text"].removesuffix("\n")
        [summary] = ran.err.splitlines()
        assert summary.startswith("20 tokens, ")
        assert "recipe early-exit, mean_acceptance_length " in summary

    @pytest.mark.parametrize("recipe", ["plain", "prompt-lookup", "early-exit"])
    def test_every_recipe_gives_the_tokens_of_no_speculation(self, recipe: str, bundle: Path) -> None:
        argv = ("generate", bundle, "--prompt", PROMPT * 3, "--max-new-tokens", 40, "--json")
        plain = specc(*argv, "--no-speculation").json
        assert (plain["recipe"], plain["num_drafts"], plain["mean_acceptance_length"]) == ("plain", 0, 1.0)
        told = specc(*argv, "--recipe", recipe).json
        assert (told["token_ids"], told["text"]) == (plain["token_ids"], plain["text"])
        assert sum(told["acceptance_histogram"]) == told["num_drafts"]

    def test_a_prompt_from_a_file_and_from_standard_input(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "prompt.txt").write_text("Ünïcode", encoding="utf-8")
        argv = ("generate", bundle, "--max-new-tokens", 8, "--json")
        wanted = specc(*argv, "--prompt", "Ünïcode").json["token_ids"]
        assert specc(*argv, "--prompt-file", tmp_path / "prompt.txt").json["token_ids"] == wanted
        assert specc(*argv, "-", stdin="Ünïcode".encode()).json["token_ids"] == wanted

    def test_a_chat_goes_through_the_template(self, bundle: Path) -> None:
        argv = ("generate", bundle, "--max-new-tokens", 8, "--json")
        chat = specc(*argv, "--chat", "--prompt", "hi").json
        assert chat["token_ids"] == specc(*argv, "--prompt", "<user>hi\n<assistant>").json["token_ids"]

    def test_seeds_repeat(self, bundle: Path) -> None:
        argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 16, "--temperature", 1.5, "--json")

        def tokens(seed: int) -> tuple[int, ...]:
            return tuple(specc(*argv, "--seed", seed).json["token_ids"])

        assert tokens(1) == tokens(1)
        assert len({tokens(seed) for seed in range(5)}) == 5
        assert len({tuple(specc(*argv).json["token_ids"]) for _ in range(3)}) == 3

    def test_a_stop_string_ends_the_text(self, bundle: Path) -> None:
        argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 40, "--json")
        text = specc(*argv).json["text"]
        stop = text[10:13]
        told = specc(*argv, "--stop", "never to be found", "--stop", stop).json
        assert told["finish_reason"] == "stop"
        assert told["text"] == text[: text.index(stop)]

    def test_a_prompt_that_fills_the_cache(self, bundle: Path) -> None:
        ids = [1] * 255
        generated = load(bundle).generate(ids, 10)
        assert (len(generated.token_ids), generated.finish_reason) == (1, "length")

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            ((), "give one prompt: --prompt TEXT, --prompt-file FILE, or - for standard input"),
            (("-", "--prompt", "a"), "give one prompt"),
            (("a",), "unexpected 'a'; give the prompt as --prompt"),
            (("--prompt", ""), "the prompt is empty"),
            (("--prompt", "word " * 400), "the prompt has 401 tokens and the cache 256 rows; shorten it"),
            (("--prompt-file", "/nowhere"), "/nowhere: No such file or directory"),
            (("--prompt", "a", "--recipe", "promt-lookup"), "did you mean 'prompt-lookup'?"),
            (("--prompt", "a", "--recipe", "early-exit", "--no-speculation"), "exclude each other"),
            (("--prompt", "a", "--acceptance", "greedy"), "only match, recursive, speculative"),
            (("--prompt", "a", "--recipe", "prompt-lookup", "--acceptance", "speculative"), "needs a drafter that"),
            (("--prompt", "a", "--temperature", "-1"), "temperature -1.0 is negative"),
            (("--prompt", "a", "--top-p", "0"), "top_p 0.0 is not in (0, 1]"),
            (("--prompt", "a", "--top-k", "-1"), "top_k -1 is negative"),
            (("--prompt", "a", "--stop", ""), "a stop string is empty"),
        ],
    )  # fmt: skip
    def test_bad_input_is_one_line(self, argv: tuple[str, ...], said: str, bundle: Path) -> None:
        assert said in refused("generate", bundle, *argv)

    def test_a_prompt_that_is_no_text_is_refused(self, bundle: Path) -> None:
        assert "standard input is no UTF-8 text" in refused("generate", bundle, "-", stdin=b"\xff\xfe")

    def test_a_reader_that_goes_away_is_no_error(self, bundle: Path) -> None:
        argv = command("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 200)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""

    def test_an_interrupt_is_130(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("specc.load", interrupt)
        ran = specc("generate", bundle, "--prompt", "a")
        assert (ran.status, ran.out, ran.err) == (130, "", "")


@pytest.mark.model
class TestConversation:
    def test_a_second_turn_runs_only_what_is_new(self, bundle: Path) -> None:
        session = load(bundle)
        first = [i % 400 for i in range(130)]
        answer = session.generate(first, 10, recipe="early-exit", guard=False).token_ids
        assert _calls(session, "prefill") == 3  # 130 tokens, 64 at once
        second = [*first, *answer, 5]
        got = session.generate(second, 10, recipe="plain")
        assert (
            _calls(session, "prefill") + _calls(session, "decode") <= 3 + 1 + 9
        )  # the prompt's new tokens, then one each
        assert got.token_ids == load(bundle).generate(second, 10, recipe="plain").token_ids

    def test_another_beginning_runs_anew(self, bundle: Path) -> None:
        session = load(bundle)
        session.generate([7, 8, 9] * 30, 10)
        other = [7, 8, 9, 9] * 25
        assert session.generate(other, 10).token_ids == load(bundle).generate(other, 10).token_ids

    def test_an_abandoned_stream_leaves_the_session_sound(self, bundle: Path) -> None:
        session = load(bundle)
        next(session.stream(PROMPT, 50, recipe="early-exit"))
        assert session.generate(PROMPT, 20).token_ids == load(bundle).generate(PROMPT, 20).token_ids


def _calls(session: Any, engine: str) -> int:
    return int(session.engines[engine].calls)


@pytest.mark.model
class TestDamage:
    """Whatever happens to a file, the bundle is refused in one line: no traceback, and never a token."""

    def test_every_file_that_is_altered_cut_or_gone(self, bundle: Path, tmp_path: Path) -> None:
        damaged, manifest = copied(bundle, tmp_path), open_bundle(bundle).manifest
        for file in sorted(damaged.iterdir()):
            whole, chance = file.read_bytes(), random.Random(file.name)
            offsets = {0, len(whole) // 2, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(30))}
            changes = [_flipped(whole, at, 1 << chance.randrange(8)) for at in offsets]
            changes += [whole[:length] for length in (0, 1, len(whole) // 2, len(whole) - 1)] + [whole + b"\0"]
            for change in changes:
                file.write_bytes(change)
                _refuses(damaged, file.name, manifest)
            file.unlink()
            _refuses(damaged, file.name, None)
            file.write_bytes(whole)
        open_bundle(damaged).check()

    @pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "decode.onnx", "tokenizer.json", "golden.jsonl"])
    @pytest.mark.parametrize("verb", ["test", "generate"])
    def test_the_command_line_says_which_file(self, verb: str, name: str, bundle: Path, tmp_path: Path) -> None:
        damaged = copied(bundle, tmp_path)
        file, argv = damaged / name, [verb, damaged, *(["--prompt", "a"] if verb == "generate" else [])]
        assert specc(*argv).status == 0  # the machine remembers the hashes of the files that it has read
        whole = file.read_bytes()
        file.write_bytes(_flipped(whole, len(whole) // 2, 1))
        assert str(file) in refused(*argv)
        file.write_bytes(whole[:-2])
        assert str(file) in refused(*argv)
        file.unlink()
        assert name in refused(*argv)

    def test_a_newer_schema_asks_for_a_newer_specc(self, bundle: Path, tmp_path: Path) -> None:
        newer = edit_manifest(copied(bundle, tmp_path), lambda m: m.update(schema=99))
        assert refused("show", newer).endswith("has schema version 99, newer than 1; upgrade specc")

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda m: m.update(engines=3), "manifest.engines: expected list, found 3"),
            (lambda m: m.update(surprise=1), "unknown field 'surprise'"),
            (lambda m: m.pop("model"), "field 'model' is missing"),
            (lambda m: m["model"].update(context="long"), "manifest.model.context: expected int"),
            (lambda m: m.update(default_recipe="none"), "default_recipe: there is no 'none'"),
            (lambda m: m["recipes"][0].update(verify=["none"]), "there is no 'none'"),
            (lambda m: m["engines"][0].update(file="none"), "there is no 'none'"),
            (lambda m: m["engines"][0]["block"].update(cache="none"), "there is no 'none'"),
            (lambda m: m["engines"][0]["block"].update(topology={"parents": [-1, 5]}), "not a tree"),
            (lambda m: m["engines"][0]["block"].update(outputs=["smell"]), "unknown output 'smell'"),
            (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "lies outside the bundle"),
            (lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "lies outside the bundle"),
            (lambda m: m["engines"][1].update(backend="abacus"), "no backend 'abacus', only onnx"),
            (lambda m: m["recipes"][0].update(drafter="os"), "this runtime has no 'os' in drafters/"),
            (lambda m: m["recipes"][0].update(drafter="../evil"), "is no name for a file in drafters/"),
        ],
    )
    def test_a_signed_manifest_that_makes_no_sense(self, edit: Any, said: str, bundle: Path, tmp_path: Path) -> None:
        odd = edit_manifest(copied(bundle, tmp_path), edit)
        assert said in refused("generate", odd, "--prompt", "a", "--no-speculation")


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def _refuses(bundle: Path, name: str, original: Any) -> None:
    """A changed manifest may still say the same, as where one space became another; nothing else may change."""
    try:
        opened = open_bundle(bundle)
        opened.check()
    except BundleError as e:
        assert "\n" not in str(e)
        assert name in str(e) or "newer than" in str(e) or "manifest" in str(e), e
    else:
        assert name == MANIFEST and opened.manifest == original


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.mark.model
class TestWithoutTorch:
    def test_the_verbs_work(self, bundle: Path, model: Path) -> None:
        code = BLOCK + "from specc.cli import main; main(sys.argv[1:])"

        def run(*argv: Any) -> subprocess.CompletedProcess[str]:
            return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True)

        argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--json")
        assert json.loads(run(*argv).stdout)["token_ids"] == specc(*argv).json["token_ids"]
        assert json.loads(run("test", bundle, "--json").stdout)["diverged"] == 0
        assert json.loads(run("show", bundle, "--json").stdout) == specc("show", bundle, "--json").json
        assert json.loads(run("recipes", "--json").stdout) == specc("recipes", "--json").json
        for ran in (run("compile", model, "-o", "x"), run("test", bundle, "--reference", model)):
            assert ran.returncode == 2
            assert ran.stdout == ""
            assert ran.stderr.splitlines()[-1].startswith("specc: error: this needs the compiler")
            assert ran.stderr.endswith("pip install specc[compile]\n")

    def test_the_runtime_works_alone(self, bundle: Path, tmp_path: Path) -> None:
        """The law of the layers: `runtime/` in an otherwise empty package replays the golden file."""
        (tmp_path / "specc").mkdir()
        (tmp_path / "specc" / "__init__.py").touch()
        runtime = Path(sys.modules["specc.runtime"].__path__[0])
        shutil.copytree(runtime, tmp_path / "specc" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
        code = BLOCK + (
            "import json\n"
            "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
            "sys.path[:] = [sys.argv[1], *(p for p in sys.path if '__editable__' not in p)]\n"
            "from specc.runtime.bundle import open_bundle\n"
            "from specc.runtime.session import Session\n"
            "assert sys.modules['specc.runtime'].__file__.startswith(sys.argv[1])\n"
            "session, cases = Session(open_bundle(sys.argv[2])), open(sys.argv[2] + '/golden.jsonl').readlines()\n"
            "for case in map(json.loads, cases):\n"
            "    for recipe in session.bundle.manifest.recipes:\n"
            "        got = session.generate(case['prompt_ids'], len(case['token_ids']), recipe=recipe.name)\n"
            "        assert got.token_ids == case['token_ids']\n"
            "ours = sorted(m for m in sys.modules if m.startswith('specc') and not m.startswith('specc.runtime'))\n"
            "print(len(cases), ours)\n"
        )
        argv = [sys.executable, "-I", "-c", code, str(tmp_path), str(bundle)]
        ran = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
        assert (ran.stdout, ran.stderr) == ("3 ['specc']\n", "")
