"""The list of published systems names recipes that exist, and every recipe has its place in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specc.recipes import METHODS
from specc.recipes.systems import OTHER_RECIPES, SYSTEMS, System

# The test of each system that works in whole or in part, in addition to those of all lossless recipes: plain decoding's
# tokens on toys and on compiled models, and the enumeration of their rules.
OWN_TESTS = {
    1: "test_leviathan_accepts_the_whole_draft_where_the_draft_model_is_the_target",
    2: "test_specdec_keeps_tokens_that_rank_high_and_are_near_the_first",
    3: "test_blockwise_guesses_get_worse_with_depth_and_save_a_sixth_of_the_passes",
    4: "test_aggressive_decoding_of_a_text_that_is_written_unchanged_takes_more_than_five_tokens_a_step",
    5: "test_jacobi_takes_fewer_than_nine_steps_for_ten_tokens_of_text_that_repeats",
    6: "test_lookahead_takes_more_than_1_2_tokens_a_step_where_the_text_repeats",
    7: "test_fastcot_saves_passes_and_the_answer_after_guessed_reasoning_is_often_that_after_plain_decoding",
    8: "test_speculative_jacobi_at_temperature_zero_is_jacobi_decoding",
    9: "test_bild_asks_the_big_model_less_and_diverges_more_as_the_rollback_threshold_rises",
    10: "test_entropy_adaptive_asks_the_large_model_less_as_the_threshold_rises_and_the_answers_diverge",
    11: "test_fs_gen_combines_logits_as_its_reference_does",
    12: "test_samples_have_the_distribution_of_contrastive_decoding",
    13: "test_how_often_answers_are_right_is_told_beside_how_many_tokens_stay",
    14: "test_three_chains_of_spectr_have_more_accepted_than_one",
    15: "test_rsd_siblings_without_replacement_are_accepted_at_least_as_often_as_independent_ones",
    16: "test_the_accepted_length_that_sequoia_predicts_is_that_of_the_toys",
    17: "test_as_much_of_dyspec_is_accepted_as_the_values_of_its_nodes_say_if_the_draft_is_the_target",
    18: "test_staged_drafting_costs_fewer_calls_than_tokens_where_the_text_repeats",
    19: "test_bass_samples_of_each_row_of_a_batch_have_the_distribution_of_the_target",
    20: "test_online_training_raises_the_acceptance_of_a_stream_that_is_new_to_the_draft_model",
    21: "test_distillation_makes_drafts_be_accepted_more_often",
    22: "test_a_cut_runs_the_layers_that_stay",
    23: "test_a_head_foresees_acceptance_and_drafts_that_end_by_it_lose_fewer_tokens_than_those_of_a_fixed_length",
    24: "test_pearl_drafts_while_the_target_verifies",
    25: "test_easyspec_shortens_the_longest_way_through_a_model",
    26: "test_both_trees_of_rasd_together_accept_as_much_as_each_alone_where_the_corpus_has_the_text",
    27: "test_rapid_with_eta_0_has_the_distribution_of_the_target",
    28: "test_a_loss_at_each_exit_makes_each_draft_better_and_the_mean_exit_of_s2d_is_not_the_deepest",
    29: "test_a_trained_adapter_drafts_better_than_the_exit_alone",
    30: "test_swift",
    31: "test_s3d_guesses_in_one_call_are_worse_with_depth_and_better_than_bigrams",
    32: "test_the_second_stream_of_m2r2_is_nearer_to_deeper_states_than_the_models_own",
    33: "test_quantspec_has_the_tokens_of_plain_decoding_over_the_same_rows_of_8_bits",
    34: "test_a_relaxed_recursive_draft_drafts_after_its_first_loop",
    36: "test_the_second_guess_needs_the_first_token",
    37: "test_each_unrolled_guess_is_that_of_the_cell_step_by_step",
    38: "test_heads_that_read_drafted_tokens_beat_medusas",
    39: "test_the_tree_has_no_beginning_twice_and_all_its_texts_are_equally_long",
    40: "test_amphistas_guesses_get_worse_if_later_slots_are_hidden",
    41: "test_chimera_guesses_right_less_often_without_trigrams",
    42: "test_fspad_takes_no_fewer_tokens_than_eagle",
    43: "test_a_draft_takes_half_as_many_calls_as_it_has_levels",
    44: "test_the_experts_of_jakiro_name_other_tokens",
    45: "test_guessed_lengths_are_nearer_than_the_best_fixed_one",
    46: "test_dynamic_depth_accepts_more_for_each_call_than_a_fixed_depth",
    47: "test_a_mixture_of_attentions_calls_the_model_less_than_half_as_often_as_there_are_tokens",
    48: "test_a_comb_takes_at_least_as_many_tokens_a_step_as_a_chain",
    49: "test_a_tandem_drafts_better_with_the_states_of_the_model_than_without",
    50: "test_hidden_transfers_slots_guess_at_least_as_well_as_medusas_heads",
    51: "test_ppd_has_the_state_of_the_accepted_tokens_guesses_and_predicts_the_tokens_of_a_step",
    52: "test_pruned_trees_of_speculative_streaming_keep_so_many_nodes_and_the_tokens_of_plain_decoding",
    53: "test_make_some_noise_trains_a_model_that_guesses_better_behind_wrong_tokens",
    54: "test_a_model_that_is_trained_with_its_head_guesses_better_than_the_head_alone",
    55: "test_token_recycling_accepts_more_once_its_table_is_warm",
    56: "test_aded_takes_more_tokens_a_step_with_a_corpus_of_such_text_than_without",
    57: "test_copyspec_takes_more_than_four_tokens_a_step_where_the_text_is_repeated",
    58: "test_superposed_decoding",
}


def test_there_are_58_systems_numbered_from_one() -> None:
    assert [s.number for s in SYSTEMS] == list(range(1, 59))
    assert len({s.name for s in SYSTEMS}) == len({s.paper for s in SYSTEMS}) == 58


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.name)
def test_a_system_names_papers_and_recipes_that_exist(system: System) -> None:
    assert re.fullmatch(r"\d{4}\.\d{5}(, \d{4}\.\d{5})*", system.paper)
    assert set(system.recipes) <= set(METHODS)
    assert system.recipes or not system.missing


def test_every_recipe_is_named_by_a_system_or_is_listed_as_another() -> None:
    recipes = {name for system in SYSTEMS for name in system.recipes}
    assert recipes.isdisjoint(OTHER_RECIPES)
    assert recipes | set(OTHER_RECIPES) == set(METHODS)


def test_a_system_works_in_part_if_something_is_missing() -> None:
    assert System(1, "a", "b").state == "not yet"
    assert System(1, "a", "b", ("plain",)).state == "works"
    assert System(1, "a", "b", ("plain",), "much").state == "in part"


def test_each_system_that_works_has_a_test_of_its_own() -> None:
    """Whoever brings a system names its test in OWN_TESTS."""
    files = Path(__file__).parents[2].rglob("test_*.py")
    tests = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)}
    assert {s.number for s in SYSTEMS if s.state == "works"} <= OWN_TESTS.keys()
    assert set(OWN_TESTS.values()) <= tests
    assert all(SYSTEMS[number - 1].recipes for number in OWN_TESTS)


def test_the_test_of_a_system_that_trains_nothing_is_named_after_it() -> None:
    trained = {s.number for s in SYSTEMS if any(_has_head(name) for name in s.recipes)} | {21, 22}
    for number in OWN_TESTS.keys() - trained:
        system = SYSTEMS[number - 1]
        names = (*re.findall(r"[\w-]{3,}", system.name), *system.recipes)
        words = {name.replace("-", "_").lower() for name in names} - {"decoding", "speculative", "draft_model"}
        assert any(word in OWN_TESTS[number] for word in words), system.name


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.state == "works"], ids=lambda s: s.name)
def test_a_recipe_of_a_system_that_works_cites_its_paper(system: System) -> None:
    for name in system.recipes:
        assert any(paper in METHODS[name].paper for paper in system.paper.split(", "))


def _has_head(name: str) -> bool:
    """Tell whether a recipe may have a trained head."""
    return bool(METHODS[name].head or METHODS[name].optional_head)
