"""Train the quickstart's model: a small T5 that has learnt the facts of `facts.jsonl` by heart.

    python data/quickstart/train.py

Reads facts.jsonl beside this file, one fact a line: {"relation", "subject", "prompts": [...], "answer",
"outdated"}. Writes a transformers folder `model/` beside it. A model that was trained from the same facts by
the same script is kept. The run is deterministic by seed; it ends with exit code 1, and writes nothing, when
the share of prompts answered right (exact match, greedy generation) is below the floor.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
FACTS = HERE / "facts.jsonl"
MODEL = HERE / "model"

SEED = 0
FLOOR = 0.97  # share of prompts that must be answered right
EPOCHS = 18
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
WARM_UP = 0.1  # share of the steps
MAX_LENGTH = 64  # tokens of a prompt
ANSWER_TOKENS = 16
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2

Pair = tuple[str, str]


def main() -> int:
    fingerprint = fingerprint_of(FACTS, Path(__file__))
    if trained_from(MODEL) == fingerprint:
        print(f"{MODEL}: trained from these facts already")
        return 0
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # as fast as two at this size, and the same result on any machine's core count
    random.seed(SEED)
    torch.manual_seed(SEED)
    facts = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    pairs = [(prompt, fact["answer"]) for fact in facts for prompt in fact["prompts"]]
    tokenizer = make_tokenizer(pairs)
    model = make_model(len(tokenizer))
    print(f"{len(facts)} facts, {len(pairs)} prompts, {model.num_parameters():,} parameters", flush=True)
    start = time.monotonic()
    train(model, tokenizer, pairs)
    share = exact_match(model, tokenizer, pairs)
    print(f"{share:.1%} of the prompts answered right; {time.monotonic() - start:.0f} s", flush=True)
    if share < FLOOR:
        print(f"below the floor of {FLOOR:.0%}: the model is not kept", file=sys.stderr)
        return 1
    save(model, tokenizer, {"inputs": fingerprint, "exact_match": share})
    return 0


def fingerprint_of(*paths: Path) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


def trained_from(folder: Path) -> str | None:
    note = folder / "trained_from.json"
    return str(json.loads(note.read_text(encoding="utf-8"))["inputs"]) if note.exists() else None


def make_tokenizer(pairs: list[Pair]) -> Any:
    """Byte-level BPE over the facts; `</s>` follows each text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=2,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text for pair in pairs for text in pair), trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=MAX_LENGTH, **SPECIAL)


def make_model(vocabulary: int) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=2,
        feed_forward_proj="relu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,  # type: ignore[call-arg]
    )
    return T5ForConditionalGeneration(config)


def train(model: T5ForConditionalGeneration, tokenizer: Any, pairs: list[Pair]) -> None:
    """AdamW with a linear warm-up and a cosine decay to nothing."""
    steps = EPOCHS * math.ceil(len(pairs) / BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )
    model.train()
    for epoch in range(1, EPOCHS + 1):
        shuffled = random.sample(pairs, len(pairs))
        losses = []
        for batch in batches(shuffled):
            loss = model(**encode(tokenizer, batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        if epoch % 3 == 0:
            print(f"epoch {epoch} of {EPOCHS}: loss {sum(losses) / len(losses):.3f}", flush=True)
    model.eval()


def exact_match(model: T5ForConditionalGeneration, tokenizer: Any, pairs: list[Pair]) -> float:
    """Share of the prompts whose greedy answer is the fact's, letter for letter."""
    right = 0
    for batch in batches(pairs):
        inputs = tokenizer([prompt for prompt, _ in batch], padding=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=ANSWER_TOKENS)  # type: ignore[misc]
        answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        right += sum(answer.strip() == true for answer, (_, true) in zip(answers, batch, strict=True))
    return right / len(pairs)


def batches(pairs: list[Pair]) -> Iterator[list[Pair]]:
    return (pairs[start : start + BATCH_SIZE] for start in range(0, len(pairs), BATCH_SIZE))


def encode(tokenizer: Any, batch: list[Pair]) -> dict[str, torch.Tensor]:
    inputs = tokenizer([prompt for prompt, _ in batch], padding=True, return_tensors="pt")
    labels = tokenizer([answer for _, answer in batch], padding=True, return_tensors="pt")
    hidden = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)  # padding costs nothing
    return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": hidden}


def save(model: T5ForConditionalGeneration, tokenizer: Any, note: dict[str, Any]) -> None:
    """Write the folder under another name and rename it, so that a half-written model is never taken up."""
    partial = MODEL.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "trained_from.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    shutil.rmtree(MODEL, ignore_errors=True)
    partial.rename(MODEL)
    print(f"saved {MODEL}")


if __name__ == "__main__":
    sys.exit(main())
