"""The "did you mean" of every error."""

from __future__ import annotations

from melo_cli.suggest import did_you_mean, nearest


def test_the_nearest_name_comes_first_whatever_its_case() -> None:
    assert nearest("Max_Step", ["batch_size", "max_steps", "max_edits"])[0] == "max_steps"


def test_at_most_count_names_and_none_that_is_unlike() -> None:
    blocks = [f"h.{number}.mlp.c_fc" for number in range(9)]
    assert len(nearest("h.3.mlp.c_f", blocks, count=2)) == 2
    assert nearest("zebra", blocks) == []


def test_doubles_are_offered_once() -> None:
    assert nearest("rank", ["rank", "rank"]) == ["rank"]


def test_the_clause_names_every_candidate_or_is_none() -> None:
    assert did_you_mean("adam", ["Adam", "AdamW", "SGD"], count=2) == "did you mean Adam or AdamW?"
    assert did_you_mean("zebra", ["Adam"]) is None
