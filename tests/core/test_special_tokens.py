"""Padding and end tokens where a model's settings and its tokenizer's differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pico_architectures import build
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from melo_cli.errors import DatasetError, PromptError
from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.models.encoding import Encoder, pad_prompts
from melo_cli.recipe import ModelSection
from melo_cli.runtime.greedy import greedy_options, write_greedily

Change = Callable[..., Path]


def loaded(folder: Path, **settings: Any) -> BaseModel:
    return load_base_model(ModelSection(name_or_path=str(folder), device="cpu", **settings), "custom")


@pytest.fixture
def changed(tmp_path: Path) -> Change:
    """A copy of a model with other settings in its JSON files."""

    def change(source: Path, file: str, **settings: Any) -> Path:
        folder = tmp_path / source.name
        if not folder.exists():
            shutil.copytree(source, folder)
        path = folder / file
        document = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(document | settings))
        return folder

    return change


def test_a_padding_token_without_an_embedding_is_not_used(pico_gpt2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    shutil.copytree(pico_gpt2, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    base = loaded(folder)
    alone = write_greedily(base, [base.tokenizer("The court").input_ids], 4)
    prompts = [
        base.tokenizer(text).input_ids for text in ("The court", "Who is the prime minister of Britain?")
    ]
    assert write_greedily(base, prompts, 4)[0] == alone[0]
    assert base.special.pad == base.tokenizer.pad_token_id < base.model.config.vocab_size
    with pytest.raises(
        PromptError, match=r"its token '\[PAD\]' has the id 400, but the model has 400 embeddings"
    ):
        Encoder(base).prompt("What is [PAD]?")


@pytest.mark.parametrize("config_pad", [None, 9], ids=["none", "another than the tokenizer's"])
def test_a_decoders_classes_do_not_hang_on_batch_mates(
    config_pad: int | None, changed: Change, tmp_path: Path, pico_tokenizer: Any
) -> None:
    model = build("qwen2_classifier", tmp_path / "built", pico_tokenizer)
    base = loaded(changed(model, "config.json", pad_token_id=config_pad))
    texts = ["Where?", "Who is the prime minister of Britain?", "The court holds that it does not apply"]
    prompts = [base.tokenizer(text).input_ids for text in texts]
    with torch.no_grad():
        together = base.model(**pad_prompts(base, prompts)).logits
        by_tokenizer = base.model(**base.tokenizer(texts, padding=True, return_tensors="pt")).logits
        for row, prompt in enumerate(prompts):
            alone = base.model(input_ids=torch.tensor([prompt])).logits[0]
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(by_tokenizer[row], alone, atol=1e-5, rtol=1e-4)


def test_every_way_of_asking_stops_at_either_end_token(pico_llama: Path, changed: Change) -> None:
    folder = changed(pico_llama, "generation_config.json", eos_token_id=5)
    base = loaded(folder, template="chat")
    own, tokenizers = 5, base.tokenizer.eos_token_id
    assert base.special.stops == (own, tokenizers)
    assert base.model.generation_config.eos_token_id == [own, tokenizers]
    assert greedy_options(base, 4)["eos_token_id"] == [own, tokenizers]
    # The model's own generate, in transformers alone, knows its own end token only.
    assert Encoder(base, template="chat").edit("Who?", "Paris").target_ids[-1] == own


def test_an_end_token_that_both_know_closes_targets(pico_llama: Path, changed: Change) -> None:
    base = loaded(changed(pico_llama, "generation_config.json", eos_token_id=[5, 2]))
    assert base.special.stop == base.tokenizer.eos_token_id == 2


def test_the_token_that_a_model_is_made_to_begin_with_is_part_of_a_target(
    tmp_path: Path, changed: Change, pico_tokenizer: Any
) -> None:
    begin = pico_tokenizer.bos_token_id
    model = build("bart", tmp_path / "built", pico_tokenizer)
    base = loaded(changed(model, "generation_config.json", forced_bos_token_id=begin))
    edit = Encoder(base).edit("Who?", "Paris")
    assert edit.target_ids[0] == begin
    assert Encoder(base).text(edit.target_ids) == "Paris"


def test_a_target_that_the_tokenizer_cannot_write_is_refused(tmp_path: Path, pico_tokenizer: Any) -> None:
    from tokenizers import normalizers

    model = build("llama", tmp_path / "llama", pico_tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save_pretrained(model)
    encoder = Encoder(loaded(model))
    assert encoder.edit("Who?", "paris").target_ids
    with pytest.raises(
        DatasetError, match="target 'Paris': the tokenizer cannot write it: it becomes 'paris'"
    ):
        encoder.edit("Who?", "Paris")


def test_a_target_that_generation_suppresses_is_refused(pico_llama: Path, changed: Change) -> None:
    plain = loaded(pico_llama)
    (token, *_) = Encoder(plain).edit("Who?", "Paris").target_ids
    encoder = Encoder(loaded(changed(pico_llama, "generation_config.json", suppress_tokens=[token])))
    with pytest.raises(DatasetError, match="the model's generation config suppresses"):
        encoder.edit("Who?", "Paris")


def test_a_long_prompt_keeps_its_end_and_room_for_an_answer(pico_llama: Path) -> None:
    base = loaded(pico_llama, template="chat")
    encoder = Encoder(base, template="chat", truncate=True)
    question = "Who is the prime minister of Britain?"
    ids = encoder.prompt("The tower was built in 1889. " * 200 + question)
    assert base.max_length is not None
    assert len(ids) < base.max_length
    written = base.tokenizer.decode(ids)
    assert written.startswith(base.tokenizer.decode(encoder.prompt("x"))[:8])
    assert question in written
    assert encoder.edit("The tower. " * 200 + question, "John Smith").target_ids


def test_plain_transformers_ends_where_melo_ends(pico_gpt2: Path) -> None:
    base = loaded(pico_gpt2)
    ids = base.tokenizer("The court").input_ids
    model = AutoModelForCausalLM.from_pretrained(pico_gpt2)
    plain = model.generate(torch.tensor([ids]), generation_config=GenerationConfig(**greedy_options(base, 6)))
    assert (
        plain[0, len(ids) :].tolist()[: len(write_greedily(base, [ids], 6)[0])]
        == write_greedily(base, [ids], 6)[0]
    )
