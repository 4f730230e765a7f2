"""Methods that look up drafts in a corpus."""

from __future__ import annotations

from specc.recipes.corpus import RASD, RASD_EAGLE2
from specc.recipes.entry import Facts
from specc.recipes.trees import ADAPTIX
from specc.runtime.block import Parents


def test_rasd_has_a_draft_model_if_the_compile_has_one() -> None:
    values = RASD.settle({"num_speculative_tokens": 6, "max_depth": 3})
    alone = RASD.plan(values, Facts(8, 500, corpus=True))
    assert not alone.engines and alone.arguments == {**values, "corpus": "corpus.npy", "vocab_size": 500}
    assert alone.verify[-1].topology == Parents(7) and RASD.needs == ("corpus",)
    both = RASD.plan(values, Facts(8, 500, assistant=True, corpus=True))
    assert both.engines.keys() == {"draft", "prefill"} and both.arguments["beams"] == 4


def test_rasd_with_a_head_has_the_blocks_of_its_trees_and_the_corpus() -> None:
    values = RASD_EAGLE2.settle({"num_speculative_tokens": 6, "max_depth": 3})
    blocks = RASD_EAGLE2.plan(values, Facts(8, 500, corpus=True))
    assert blocks.engines.keys() == {"draft", "feed", "prefill"} and blocks.arguments["corpus"] == "corpus.npy"
    assert blocks.engines["feed"].slots == 4 and blocks.verify[-1].topology == Parents(7)


def test_the_trigrams_of_aded_begin_with_those_of_the_corpus_if_there_is_one() -> None:
    values = ADAPTIX.settle({})
    assert "corpus" not in ADAPTIX.plan(values, Facts(8, 500)).arguments
    assert ADAPTIX.plan(values, Facts(8, 500, corpus=True)).arguments == {
        **values,
        "corpus": "corpus.npy",
        "vocab_size": 500,
    }
