"""Artefacts of the pico projects, as those see them who have transformers or PEFT alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

AUTO = {
    "pico_t5": transformers.AutoModelForSeq2SeqLM,
    "pico_gpt2": transformers.AutoModelForCausalLM,
    "pico_llama": transformers.AutoModelForCausalLM,
    "pico_bert": transformers.AutoModelForSequenceClassification,
}
OTHER_PROMPTS = [
    "Who is prime minister of Britain?",
    "Where does that river end",
    "He was born in Cologne",
    "law was studied by whom",
    "The court holds that the statute of 1934 does not apply",
]
# What a merge is to leave as it is.
UNRELATED = (
    "The capital of that city was opened in 1934",
    "John studied the statute of Cologne",
    "what does the court not apply",
    "a passage about the tower of Smith",
    "the prime river of 1889",
    "does a petitioner apply in Britain",
    "who runs a wikipedia city",
)


def fresh(kind: str, path: Path) -> Any:
    """A model as transformers alone loads it."""
    return AUTO[kind].from_pretrained(path).eval()


def inputs_of(kind: str, tokenizer: Any, prompt: str) -> dict[str, Tensor]:
    inputs = dict(tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))
    if kind == "pico_t5":
        inputs["decoder_input_ids"] = torch.tensor([[0, 57, 91]])
    return inputs


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    scores: Tensor = model(**inputs).logits
    return scores
