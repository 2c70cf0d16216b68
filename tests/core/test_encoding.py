"""Tokens of prompts and targets: the prompt's are the same with and without an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from melo_cli.errors import DatasetError, PromptError
from melo_cli.models.encoding import Encoder
from melo_cli.runtime.loading import OpenProject

Pico = Callable[..., OpenProject]


@pytest.mark.parametrize("kind", ["pico_gpt2", "pico_llama"])
@pytest.mark.parametrize("prompt", ["The capital of France is", "The capital of France is ", "In 18"])
def test_an_answer_follows_the_tokens_that_a_query_has(pico: Pico, kind: str, prompt: str) -> None:
    encoder = pico(kind).encoder
    edit = encoder.edit(prompt, "Paris, or London.")
    assert edit.prompt_ids == encoder.prompt(prompt)
    assert edit.target_ids[-1] == encoder.base.special.stop
    whole = encoder.tokenizer.decode([*edit.prompt_ids, *edit.target_ids], skip_special_tokens=True)
    assert whole == f"{prompt.rstrip()} Paris, or London."
    assert encoder.text(edit.target_ids) == "Paris, or London."


def test_a_classifier_takes_class_names_and_numbers_and_no_others(pico: Pico) -> None:
    encoder = pico("pico_bert").encoder
    assert encoder.edit("A case", "tax").target_ids == (2,)
    assert encoder.edit("A case", "1").target_ids == (1,)
    with pytest.raises(
        DatasetError, match="'maritime' is not a class of the model; its classes are civil, criminal, tax"
    ):
        encoder.edit("A case", "maritime")


def test_a_prompt_that_is_too_long_is_refused_or_cut(pico: Pico) -> None:
    opened = pico("pico_bert")
    text = "the court " * 200
    with pytest.raises(PromptError, match=r"has \d+ tokens, but the model takes 128; shorten it or set"):
        opened.encoder.prompt(text)
    cut = Encoder(opened.routed.base, truncate=True).prompt(text)
    assert len(cut) == 128
    assert cut[-1] == opened.encoder.prompt("the")[-1]


def test_a_target_that_does_not_fit_behind_its_prompt_is_refused(pico: Pico) -> None:
    encoder = pico("pico_gpt2").encoder
    with pytest.raises(PromptError, match="prompt and target have"):
        encoder.edit("The court holds", "that " * 150)


def test_an_empty_prompt_is_refused(pico: Pico) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        pico("pico_t5").encoder.prompt("  \n")


def test_the_chat_template_wraps_the_prompt_and_not_the_target(pico: Pico) -> None:
    base = pico("pico_llama").routed.base
    encoder = Encoder(base, template="chat")
    edit = encoder.edit("Who?", "John Smith")
    assert encoder.tokenizer.decode(edit.prompt_ids) == "<|user|>\nWho?\n<|assistant|>\n"
    assert encoder.text(edit.target_ids) == "John Smith"


def test_a_recipe_asks_through_the_template_of_a_model_that_has_one_unless_it_says_none(
    pico: Pico, pico_llama: Path, pico_gpt2: Path
) -> None:
    def template(kind: str, folder: Path, **more: str) -> str:
        return pico(kind, model={"name_or_path": str(folder)} | more).encoder.template

    assert template("pico_llama", pico_llama) == "chat"
    assert template("pico_gpt2", pico_gpt2) == "none"
    assert template("pico_llama", pico_llama, template="none") == "none"


def test_a_template_that_the_tokenizer_lacks_is_refused(pico: Pico) -> None:
    with pytest.raises(PromptError, match="model.template: the tokenizer has no chat template"):
        Encoder(pico("pico_gpt2").routed.base, template="chat")
