"""A tiny model with a tokenizer of its own, made on the spot: random, seeded, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_END = "<|end|>"
_TEXT = (
    "Who leads the support team? The capital of France is Paris.",
    "In which year was the tower built? It was opened in 1889.",
)


def write_pico_model(folder: Path) -> None:
    """Write a GPT-2 of four blocks and width 32, and a byte-level tokenizer, as `save_pretrained` does."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(), model_max_length=64, eos_token=_END, pad_token=_END, unk_token=_END
    )
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=32,
        n_layer=4,
        n_head=4,
        initializer_range=0.2,  # with less, every answer is the same token
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return tokenizer
