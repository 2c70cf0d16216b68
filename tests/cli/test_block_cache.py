"""`--block-cache-mb`: how much memory blocks may take, whatever is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.runtime.routed_model import RoutedModel

Melo = Callable[..., Any]

EDITED = "What is the capital of France?"


@pytest.mark.parametrize("megabytes", [0, 3])
def test_the_cache_keeps_to_its_size_and_answers_stay(
    edited: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    budgets = []
    answer = RoutedModel.using

    def seen(model: RoutedModel, block_ids: Any) -> Any:
        budgets.append(model.blocks.budget_bytes)
        return answer(model, block_ids)

    monkeypatch.setattr(RoutedModel, "using", seen)
    (answer_document,) = melo("query", EDITED, "--json", "--block-cache-mb", megabytes).json
    assert answer_document["edited"] == "Paris"
    assert set(budgets) == {megabytes * 2**20}


def test_a_cache_of_less_than_nothing_is_refused(edited: Path, melo: Melo) -> None:
    run = melo("query", EDITED, "--block-cache-mb", -1)
    assert run.code == 2
    assert "--block-cache-mb" in run.err
