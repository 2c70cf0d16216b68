"""The tiny models that other tests stand on are what they say they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

PROMPTS = ["Who is the prime minister of Britain?", "what river — runs through Köln"]


@pytest.mark.parametrize(
    ("fixture", "auto"),
    [
        ("pico_t5", AutoModelForSeq2SeqLM),
        ("pico_gpt2", AutoModelForCausalLM),
        ("pico_llama", AutoModelForCausalLM),
    ],
)
def test_generators_answer_and_their_answer_depends_on_the_prompt(
    fixture: str, auto: Any, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder)
    assert list(folder.glob("*.safetensors"))
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        assert tokenizer.batch_decode(ids["input_ids"], skip_special_tokens=True) == [prompt]
        answers.append(model.generate(**ids, max_new_tokens=8, do_sample=False)[0, -8:].tolist())
    assert answers[0] != answers[1]


def test_the_classifier_has_named_classes(pico_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pico_bert)
    model = AutoModelForSequenceClassification.from_pretrained(pico_bert)
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    assert model(**batch).logits.shape == (2, 3)
    assert sorted(model.config.id2label.values()) == ["civil", "criminal", "tax"]
    first = batch["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens([first[0], first[batch["attention_mask"][0].sum() - 1]]) == [
        "[CLS]",
        "[SEP]",
    ]


def test_special_tokens_are_as_in_the_real_models(pico_t5: Path, pico_gpt2: Path, pico_llama: Path) -> None:
    t5, gpt2, llama = (AutoTokenizer.from_pretrained(folder) for folder in (pico_t5, pico_gpt2, pico_llama))
    assert t5("Paris")["input_ids"][-1] == t5.eos_token_id == AutoConfig.from_pretrained(pico_t5).eos_token_id
    assert gpt2.pad_token_id == gpt2.eos_token_id
    assert llama("Paris")["input_ids"][0] == llama.bos_token_id
    assert "assistant" in llama.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
