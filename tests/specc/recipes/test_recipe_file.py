"""A recipe of the user's own: words of the table and numbers, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from specc.recipes import METHODS, Facts, Method, method
from specc.recipes.axes import LENGTHS, RULES, drafters, topologies
from specc.recipes.engines import default_engines
from specc.runtime.errors import RecipeError

FACTS = Facts(8, 500, assistant=True, assistant_layers=4)


def write(directory: Path, text: str, name: str = "mine.toml") -> str:
    file = directory / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def plan(m: Method, **values: Any) -> Any:
    return m.plan(m.settle(values), FACTS)


def test_a_file_that_names_a_base_alone_is_that_recipe_under_the_file_s_name(tmp_path: Path) -> None:
    own = method(write(tmp_path, "base = 'layer-skip'"))
    base = METHODS["layer-skip"]
    assert (own.name, own.drafter, own.lossless, own.by_default) == ("mine", "layer-skip", True, False)
    assert own.parameters == base.parameters and plan(own) == plan(base)


def test_a_length_and_a_rule_bring_their_parameters(tmp_path: Path) -> None:
    text = """
        name = "sure-words"
        title = "Drafts while it is sure"
        drafter = "draft-model"
        topology = "chain"
        length = "cumulative"
        acceptance = "typical"
        [parameters]
        num_speculative_tokens = 9
        rejection_threshold = 0.4
        epsilon = 0.2
    """
    own = method(write(tmp_path, text))
    assert (own.name, own.title, own.lossless) == ("sure-words", "Drafts while it is sure (lossy)", False)
    assert own.parameters.keys() == {"num_speculative_tokens", "rejection_threshold", "epsilon", "delta"}
    blocks = plan(own)
    assert blocks.arguments == {"num_speculative_tokens": 9, "rejection_threshold": 0.4}
    assert blocks.rule == {"epsilon": 0.2, "delta": 0.3} and blocks.verify[-1].slots == 10
    assert plan(own, rejection_threshold=0.1).arguments["rejection_threshold"] == 0.1


def test_a_drafter_without_a_base_means_one_recipe_or_the_file_is_refused_with_those_that_have_it(
    tmp_path: Path,
) -> None:
    """It means the recipe of its own name, else the only one that has it. It never means the first of several."""
    several = []
    for drafter, methods in drafters(METHODS).items():
        for topology in ("", *topologies(METHODS, drafter)):
            choices = [m.name for m in methods if topology in ("", m.topology)]
            text = f"drafter = '{drafter}'" + (f"\ntopology = '{topology}'" if topology else "")
            if drafter in choices or len(choices) == 1:
                base = METHODS[drafter if drafter in choices else choices[0]]
                own = method(write(tmp_path, text))
                assert own.parameters == base.parameters and f"starts from the recipe {base.name}," in own.about
            else:
                several.append(drafter)
                with pytest.raises(RecipeError) as e:
                    method(write(tmp_path, text))
                message = f"drafter {drafter} is that of {', '.join(choices)}; write base = '{choices[0]}', or another"
                assert message in str(e.value)
    assert {"static-tree", "eagle-tree"} <= set(several) and "layer-skip" not in several


def test_a_base_whose_target_is_not_the_model_s_own_stays_lossy_by_any_rule(tmp_path: Path) -> None:
    for rule, lossless in (("match", False), ("speculative", False)):
        assert method(write(tmp_path, f"base = 'quantspec-int8'\nacceptance = '{rule}'")).lossless == lossless
    assert method(write(tmp_path, "base = 'specdec'\nacceptance = 'match'")).lossless


def test_a_rule_s_parameter_is_its_own_also_where_the_rule_of_the_base_has_one_of_that_name(tmp_path: Path) -> None:
    """`beta` is 1 to 1024 in top_beta, and 0 to 10 in contrastive."""
    own = method(write(tmp_path, "base = 'specdec'\nacceptance = 'contrastive'\n[parameters]\nbeta = 0.25"))
    assert plan(own).rule == {"alpha": 0.1, "beta": 0.25}
    with pytest.raises(RecipeError, match="beta of acceptance contrastive is 11; give 0 to 10"):
        method(write(tmp_path, "base = 'specdec'\nacceptance = 'contrastive'\n[parameters]\nbeta = 11"))


@pytest.mark.parametrize("length", [word for word, axis in LENGTHS.items() if axis.parameters is not None])
def test_every_length_with_parameters_goes_with_a_drafter_of_chains(length: str, tmp_path: Path) -> None:
    own = method(write(tmp_path, f"base = 'layer-skip'\nlength = '{length}'"))
    assert set(LENGTHS[length].parameters or ()) <= plan(own).arguments.keys() and own.lossless


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_goes_with_a_drafter_that_can_serve_it(rule: str, tmp_path: Path) -> None:
    """Two rules read what the recipes of the table have that come with them."""
    base = {"judge": "judge-decoding", "proxy": "fs-gen-proxy"}.get(rule, "draft-model")
    own = method(write(tmp_path, f"base = '{base}'\nacceptance = '{rule}'")) if rule != "kseq" else None
    assert own is None or (own.acceptance == rule and (rule == "judge" or plan(own)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = 'layer-skp'", "base is 'layer-skp'; did you mean 'layer-skip'?"),
        ("drafter = 'draft-modle'", "drafter is 'draft-modle'; did you mean 'draft-model'?"),
        ("drafter = 'os.system'", "drafter is 'os.system'; there are plain, "),
        (
            "drafter = 'draft-model'\ntopology = 'chian'",
            "topology is 'chian'; did you mean 'chain'",
        ),
        (
            "drafter = 'draft-model'\ntopology = 'comb'",
            "topology is 'comb', and drafter draft-model has chain; the drafters of a comb are comb, layer-sets",
        ),
        ("base = 'jacobi'\nname = 'all'", "'all' means every recipe in 'specc bench --recipe'; give another name"),
        ("base = 'jacobi'\ntitle = ' '", "title is ' '; write one line of text, or leave it out"),
        ("base = 'bild'\nlength = 'confidnce'", "length is 'confidnce'; did you mean 'confidence'?"),
        ("base = 'jacobi'\nlength = 'bass'", "length is 'bass'; drafter jacobi takes fixed"),
        (
            "base = 'draft-model'\nlength = 'fixed'\n[parameters]\nrejection_threshold = 0.4",
            "length is 'fixed', and rejection_threshold 0.4 is another length; leave out one of the two",
        ),
        (
            "base = 'draft-model'\nlength = 'heuristic'\n[parameters]\nnum_assistant_tokens_schedule = 'constant'",
            "length is 'heuristic', and num_assistant_tokens_schedule 'constant' is another length; leave out one of",
        ),
        (
            "base = 'layer-skip'\nlength = 'match'",
            "length is 'match'; drafter layer-skip takes fixed, tuned, confidence, adaptive, cumulative, ",
        ),
        ("base = 'jacobi'\ntitle = \"a\\u001b[31mb\"", "title is 'a\\x1b[31mb'; write one line, without control"),
        ("base = 'jacobi'\ntitle = \"a\\nb\"", "title is 'a\\nb'; write one line, without control characters"),
        ("base = 'jacobi'\nnum_speculative_tokens = 3", "no key 'num_speculative_tokens'; write it below a line ["),
        *(
            (
                f"base = 'jacobi'\n[parameters]\nnum_speculative_tokens = {number}",
                "parameters has a whole number of ",
            )
            for number in ("0x" + "f" * 5000, "0b" + "1" * 64, "0o" + "7" * 9000, "9" * 20, f"[{'9' * 20}]")
        ),
        (f"base = 'jacobi'\n[parameters]\nnum_speculative_tokens = {'9' * 5000}", "a number of thousands of digits;"),
        ("base = 'bild'\nacceptance = 'mach'", "acceptance is 'mach'; did you mean 'match'?"),
        (
            "base = 'bild'\nacceptance = 'match.__globals__'",
            "acceptance is 'match.__globals__'; there are confidence, ",
        ),
        ("base = 'jacobi'\nacceptance = 'kseq'", "needs a drafter that draws siblings with replacement"),
        ("base = 'prompt-lookup'\nacceptance = 'speculative'", "needs a drafter that samples"),
        ("base = 'dynamic-tree'\nacceptance = 'speculative'", "is for chains, and the topology is a dynamic tree; use"),
        ("base = 'bild'\ndrafter = 'jacobi'", "drafter is 'jacobi', and base bild has 'draft-model'; leave out one of"),
        ("base = 'bild'\ndrafter = 'draft-modle'", "drafter is 'draft-modle'; did you mean 'draft-model'?"),
        ("base = 'bild'\ntopology = 'chian'", "topology is 'chian'; did you mean 'chain'?"),
        ("base = 'bild'\ntopology = 'beam'", "topology is 'beam', and base bild has 'chain'; leave out one of the two"),
        ("title = 'nothing'", "it names no drafter and no base; write one, such as: base = 'layer-skip'"),
        ("base = 'bild'\ncode = 'x'", "no key 'code'; "),
        ("base = 3", "base is 3; give a text"),
        ("base = 'bild'\nparameters = 4", "parameters is 4; give a table"),
        (
            "base = 'bild'\nname = '../x'",
            "'../x' is not a name of small letters, digits and hyphens; give another name",
        ),
        ("base = 'bild'\nname = 'jacobi'", "'jacobi' is a recipe of the table; give another name"),
        (
            "base = 'bild'\n[parameters]\nfallback_treshold = 1",
            "no parameter 'fallback_treshold'; did you mean 'fallback",
        ),
        (
            "base = 'draft-model'\nacceptance = 'proxy'",
            "acceptance 'proxy' needs a drafter that keeps the difference of two models' logits, and the drafter of",
        ),
        ("base = 'eagle3'\nacceptance = 'judge'", "judge reads what eagle3 has not; write base = 'judge-decoding'"),
        ("base = ", "is not TOML: "),
        ("import os", "is not TOML: "),
    ],
)
def test_what_is_no_recipe_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as e:
        method(write(tmp_path, text))
    assert message in str(e.value) and str(e.value).isprintable() and "mine.toml" in str(e.value)


def test_the_ending_of_a_recipe_file_may_be_large_letters_and_a_file_with_another_one_is_named(tmp_path: Path) -> None:
    assert method(write(tmp_path, "base = 'layer-skip'", "mine.TOML")).name == "mine"
    file = write(tmp_path, "base = 'layer-skip'", "mine.txt")
    with pytest.raises(
        RecipeError, match=rf"^{file} is a file; a recipe file has a name that ends with \.toml: rename"
    ):
        method(file)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"none.toml: No such file or directory; name a recipe of the table, or a file"
    ):
        method(str(tmp_path / "none.toml"))
    with pytest.raises(RecipeError, match="Is a directory"):
        (tmp_path / "d.toml").mkdir()
        method(str(tmp_path / "d.toml"))
    for name in ("a" * 5000, "a" * 5000 + ".toml", "a\0", "a\0.toml"):
        with pytest.raises(RecipeError, match=r"no recipe|File name too long; name a|embedded null byte; name a"):
            method(name)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not TOML"):
        method(str(tmp_path / "binary.toml"))
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(RecipeError, match="is not a regular file"):
        method(str(tmp_path / "pipe.toml"))
    with pytest.raises(RecipeError, match="has more than 65536 bytes"):
        method(write(tmp_path, "#" * (1 << 16) + "\n"))


@pytest.mark.parametrize("name", METHODS)
def test_a_value_out_of_range_is_refused_with_the_file_the_parameter_and_the_value(name: str, tmp_path: Path) -> None:
    for parameter in METHODS[name].parameters:
        for value in ("-1.5", "'oops'"):
            file = write(tmp_path, f"base = '{name}'\n[parameters]\n{parameter} = {value}")
            with pytest.raises(RecipeError) as e:
                method(file)
            line, remedy = str(e.value).split(";", 1)
            assert line.startswith(f"{file}: ") and parameter in line and value.strip("'") in line and remedy


def test_the_line_about_a_value_out_of_range_ends_with_the_range(tmp_path: Path) -> None:
    file = write(tmp_path, "base = 'bild'\n[parameters]\nfallback_threshold = 1.5")
    with pytest.raises(RecipeError, match=rf"^{file}: fallback_threshold is 1\.5; give a number from 0 to 1$"):
        method(file)
    own = method(write(tmp_path, "base = 'bild'\n[parameters]\nfallback_threshold = 0.5"))
    assert plan(own).arguments["fallback_threshold"] == 0.5


def test_the_title_of_a_lossy_recipe_says_so(tmp_path: Path) -> None:
    for rule, line, title in (
        ("typical", "title = 'Mine'", "Mine (lossy)"),
        ("typical", "title = 'Mine, lossy'", "Mine, lossy"),
        ("typical", "", "The recipe of mine.toml (lossy)"),
        ("match", "title = 'Mine'", "Mine"),
    ):
        assert method(write(tmp_path, f"base = 'draft-model'\nacceptance = '{rule}'\n{line}")).title == title
    own = method(write(tmp_path, "base = 'draft-model'\nacceptance = 'typical'", "lossy.toml"))
    assert own.title == "The recipe of lossy.toml (lossy)"  # The word in the name of the file is no statement.


def test_every_lossy_recipe_of_the_table_says_so_in_its_title() -> None:
    for m in METHODS.values():
        assert m.lossless or "lossy" in m.title, m.name


def test_layers_that_only_a_large_model_has_are_shown_and_the_range_is_that_of_any_model(tmp_path: Path) -> None:
    own = method(write(tmp_path, "base = 'layer-skip'\n[parameters]\nskip_layers = [40]"))
    assert [engine.role for engine in default_engines(own)][-1] == "draft"
    with pytest.raises(RecipeError, match=r"skip_layers has 5000; give numbers of layers from 0 to 4095"):
        method(write(tmp_path, "base = 'layer-skip'\n[parameters]\nskip_layers = [5000]"))
