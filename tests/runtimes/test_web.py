"""The browser's runtime: golden outputs in Chromium, the page, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_golden, edit_manifest, specc

from specc.exactness.golden import read_cases

ROOT = Path(__file__).parents[2]
RUNTIMES = ROOT / "runtimes"
BUILD = ROOT / "build" / "web"
DRIVER = Path(__file__).parent / "web" / "page.js"
FROZEN = ROOT / "tests" / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
RECIPES = ["plain", "prompt-lookup", "layer-skip", "quantized-self-draft", "early-exit"]
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("web")]

Page = Callable[..., Any]


@pytest.fixture(scope="module")
def package() -> Path:
    """Copy the page and the modules, and install what they need. Without a registry the tests are skipped."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    web = BUILD / "web"
    for name in ("web", "javascript"):
        (BUILD / name).mkdir(parents=True, exist_ok=True)
        for file in (RUNTIMES / name).iterdir():
            if file.is_file():
                shutil.copy(file, BUILD / name)
    lock = (web / "package-lock.json").read_bytes()
    installed = BUILD / "installed-lock.json"
    if not installed.exists() or installed.read_bytes() != lock:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(command, cwd=web, capture_output=True, text=True, timeout=600)
        if result.returncode and not os.environ.get("CI"):
            pytest.skip("npm cannot install onnxruntime-web here")
        assert result.returncode == 0, result.stderr
        installed.write_bytes(lock)
    return web


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    return path


@pytest.fixture(scope="module")
def page(package: Path, chromium: str) -> Page:
    """Return a function that drives the page, and returns what a person sees."""

    def drive(action: str, bundle: Path, *arguments: object) -> Any:
        command = ["node", str(DRIVER), str(package), chromium, action, str(bundle), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return drive


def run_program(name: str, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program from the repository, where no packages are installed: replay or serve."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    variables = os.environ | ({"PATH": path} if path else {})
    command = [node, str(RUNTIMES / "web" / f"{name}.js"), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one bundle: node replay.js BUNDLE [--json] [--recipe NAME] [--threads N]"),
        ((str(FROZEN),), "there is no Chromium on PATH (chromium, "),
    ],
)
def test_a_machine_without_chromium_and_a_missing_bundle_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = run_program("replay", *arguments, path="/nowhere")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"specc-replay-web: error: {message}")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_printed_and_no_bundle_is_opened(option: str) -> None:
    for name, usage in (("replay", "[--json] [--recipe NAME] [--threads N]"), ("serve", "[--port N]")):
        result = run_program(name, option)
        words = f"usage: node {name}.js BUNDLE {usage}\n"
        assert (result.returncode, result.stdout, result.stderr) == (0, words, "")


@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5", "0x10", "99999999999999999999"])
def test_a_number_that_means_nothing_is_named_as_it_was_typed(value: str) -> None:
    for program, option, words in (
        ("replay", "--threads", f'threads is "{value}"; give a whole number from 1 to 64'),
        ("serve", "--port", f'the port is "{value}"; give a whole number from 0 to 65535'),
    ):
        result = run_program(program, str(FROZEN), f"{option}={value}")
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"specc-{program}-web: error: {words}\n"


def lives(process: int) -> bool:
    """Return whether a process runs. One that ended and that nobody waited for does not."""
    try:
        line = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return line.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_browser_with_its_processes_and_removes_its_folder(
    number: signal.Signals, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None or not Path("/proc/self/stat").exists():
        pytest.skip("node is not installed, or this system has no /proc")
    browser, processes = tmp_path / "browser", tmp_path / "processes"
    socket = tmp_path / "org.chromium.Chromium.1" / "SingletonSocket"
    lines = (
        f"mkdir {socket.parent}; echo > {socket}",
        f'for a in "$@"; do case $a in --user-data-dir=*) ln -s {socket} ${{a#*=}}/SingletonSocket;; esac; done',
        f"sleep 600 & echo $$ $! > {tmp_path}/part; mv {tmp_path}/part {processes}; wait",
    )
    browser.write_text("\n".join(("#!/bin/sh", *lines, "")))
    browser.chmod(0o755)
    variables = os.environ | {"SPECC_CHROMIUM": str(browser), "TMPDIR": str(tmp_path)}
    command = [node, str(RUNTIMES / "web" / "replay.js"), str(FROZEN)]
    with subprocess.Popen(command, env=variables) as process:
        deadline = time.monotonic() + 30
        while not processes.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        group = [int(each) for each in processes.read_text().split()]
        assert all(map(lives, group)) and len(list(tmp_path.glob("*chromium*/SingletonSocket"))) == 2
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
    while any(map(lives, group)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(lives, group)) and not list(tmp_path.glob("*chromium*"))


@pytest.mark.slow
def test_golden_outputs_are_identical_by_every_recipe(
    package: Path, chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "specc-replay-web").symlink_to(package / "replay.js")
    (package / "replay.js").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    result = specc("test", FROZEN, "--runtime", "web", "--json")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert [(row["recipe"], row["identical"]) for row in report["recipes"]] == [(name, 4) for name in RECIPES]
    assert all(row["tokens_per_second"] > 0 for row in report["recipes"])


@pytest.mark.slow
def test_a_golden_output_that_differs_is_status_1(package: Path, chromium: str, tmp_path: Path) -> None:
    bundle = edit_golden(copied(FROZEN, tmp_path), lambda cases: cases[0]["token_ids"].__setitem__(2, 0))
    command = ["node", "replay.js", str(bundle), "--recipe", "plain"]
    result = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "3 identical, 0 near-tie, 1 diverged" in result.stdout


@pytest.mark.slow
def test_a_recipe_that_is_named_and_cannot_be_replayed_is_refused_in_one_line(package: Path, chromium: str) -> None:
    command = ["node", "replay.js", str(FROZEN), "--recipe", "plain", "--recipe", "lookahead"]
    result = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=120)
    reason = "the recipe lookahead needs the drafter lookahead, which this runtime does not have; name another one"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"specc-replay-web: error: {reason}\n")


@pytest.mark.slow
def test_the_page_streams_text_and_lights_the_accepted_tokens(page: Page) -> None:
    from tokenizers import Tokenizer

    case = CASES[1]
    tokens = Tokenizer.from_file(str(FROZEN / "tokenizer.json"))
    text = tokens.decode([*case.prompt_ids, *case.token_ids]).removeprefix(case.prompt)
    wide, narrow = page("decode", FROZEN, case.prompt, len(case.token_ids))
    for view, recipe in ((wide, "early-exit"), (narrow, "prompt-lookup")):
        assert view["answer"] == text and 0 < len(view["last"]["marks"]) < len(text)
        assert view["verdict"].endswith(" the speed; both texts are equal") and not view["errors"]
        assert view["last"]["speeds"] == [f"by {recipe}", "without speculation"]
        assert view["last"]["isolated"] and not view["last"]["overflow"]
        for state, number in ((view["first"], 1), (view["last"], view["last"]["steps"])):
            drafted, accepted = state["nodes"] - 1, state["accepted"]
            what = f"{drafted} drafted, {accepted} accepted" if drafted else "nothing drafted"
            assert state["title"] == f"Step {number} of {state['steps']}: {what}"
    assert wide["last"]["nodes"] == 12
    assert wide["last"]["backgroundColor"] != narrow["last"]["backgroundColor"]


@pytest.mark.slow
def test_an_answer_that_is_stopped_before_its_prompt_is_read_has_no_text_and_the_next_one_is_whole(page: Page) -> None:
    from tokenizers import Tokenizer

    case = CASES[1]
    tokens = Tokenizer.from_file(str(FROZEN / "tokenizer.json"))
    text = tokens.decode([*case.prompt_ids, *case.token_ids]).removeprefix(case.prompt)
    assert page("stop", FROZEN, case.prompt, len(case.token_ids)) == [["Stopped", ""], ["Ready", text]]


@pytest.mark.slow
def test_a_page_that_is_opened_as_a_file_says_how_to_serve_it(page: Page) -> None:
    line, is_shown_by_a_server = page("file", FROZEN)
    assert line.endswith("serve it by node serve.js BUNDLE, in runtimes/web") and not is_shown_by_a_server


@pytest.mark.slow
def test_the_weights_are_fetched_once(page: Page) -> None:
    first, second = page("twice", FROZEN)
    assert first["status"] == second["status"] and first["status"].startswith("Ready: 5 of 11 recipes")
    assert (first["weights"], second["weights"]) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "changed", "schema", "operator"])
def test_a_bundle_that_cannot_be_used_is_one_line_on_the_page(damage: str, page: Page, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(content[:-5])
        message = f"weights.safetensors of http://127.0.0.1:PORT/bundle has {len(content) - 5} bytes, and"
    elif damage == "changed":
        content[-1] ^= 1
        weights.write_bytes(content)
        message = "weights.safetensors of http://127.0.0.1:PORT/bundle was changed; copy the bundle again"
    elif damage == "schema":
        edit_manifest(bundle, lambda manifest: manifest.__setitem__("schema", 9))
        message = "manifest.json of http://127.0.0.1:PORT/bundle has schema 9, and this runtime reads 2 and 3; use a"
    else:
        edit_manifest(bundle, lambda manifest: [e["needs"].update({"specc::Rows": "1"}) for e in manifest["engines"]])
        message = "no recipe of the bundle can run: prompt-lookup needs specc::Rows, which onnxruntime-web does not"
    view = page("refuse", bundle)
    line = re.sub(r"(?<=127\.0\.0\.1:)\d+", "PORT", view["line"])
    assert line.startswith(message) and "\n" not in line and not view["runs"]


@pytest.mark.slow
def test_an_address_that_means_nothing_is_one_line_on_the_page(page: Page) -> None:
    bundle = {"bundle": "bundle"}
    whole = 'is "{}" in this page\'s address; give a whole number of 1 or more'
    refused: list[tuple[dict[str, str], str]] = [
        ({}, "no bundle is named; add ?bundle=URL to this page's address"),
        (bundle | {"threads": "65"}, "threads is 65; give a whole number from 1 to 64"),
        (bundle | {"context": "1"}, "context is 1; give a whole number of 2 or more"),
        (bundle | {"recipe": "nope"}, "the bundle has no recipe 'nope', only plain, "),
        ({"bundle": "http://["}, 'the bundle\'s URL "http://[" is not one; give that of a folder'),
        ({"bundle": "nowhere"}, "cannot read http://127.0.0.1:PORT/nowhere/manifest.json: the server answers 404;"),
    ]
    for value in ("-2", "0", "abc", "", "1.5"):
        for name in ("threads", "context", "tokens"):
            refused.append((bundle | {name: value}, f"{name} {whole.format(value)}"))
    unready = len(refused)
    refused.append((bundle | {"prompt": "", "run": ""}, "the prompt has 0 tokens; give 1 to "))
    fine = bundle | {"threads": "2", "context": "64", "tokens": "999999"}
    views = page("addresses", FROZEN, json.dumps([query for query, _ in refused] + [fine]))
    for (query, message), view in zip(refused, views, strict=False):
        line = re.sub(r"(?<=127\.0\.0\.1:)\d+", "PORT", view["line"])
        assert line.startswith(message) and "\n" not in line, (query, view)
    assert {(view["status"], view["runs"]) for view in views[:unready]} == {("Cannot run", False)}
    assert views[unready]["status"] == "Ready" and views[unready]["runs"], "the next prompt may be better"
    assert not views[-1]["line"] and views[-1]["runs"]


def run_node_tests(name: str, least: int, **variables: str) -> None:
    """Run a file of tests by Node, and check how many passed: a file whose tests are not seen would pass, too."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    command = ["node", "--test", "--test-reporter", "tap", str(DRIVER.with_name(name))]
    result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout
    counts = dict(line[2:].rsplit(" ", 1) for line in result.stdout.splitlines() if line.startswith("# "))
    assert int(counts["pass"]) >= least and counts["skipped"] == counts["todo"] == "0", result.stdout


def test_bundles_behind_urls_and_servers_that_cannot_be_used_are_refused_in_one_line() -> None:
    run_node_tests("source.test.js", 7)


@pytest.mark.slow
def test_options_and_engines_that_cannot_be_used_are_refused_in_one_line(package: Path) -> None:
    run_node_tests("opening.test.js", 5, SPECC_WEB=str(package))


@pytest.mark.slow
def test_the_types_are_those_of_the_functions(package: Path) -> None:
    result = subprocess.run(["npm", "run", "types"], cwd=package, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
