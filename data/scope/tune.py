"""Tune a sentence encoder, so that it tells questions apart that are near each other in their words.

    python data/scope/tune.py ENCODER OUT.safetensors [--steps 600] [--rank 8] [--threads 2]

Learns low-rank changes of the last layers (LoRA, arXiv 2106.09685) from `templates/`, of which the corpus
is made, and `families/`: a file is one type of subject, look-alikes next to each other, and kinds of
questions about it, of `families/` near siblings next to each other, each asked in many ways. Two ways of
one question are drawn to each other and pushed away from those of its siblings and of the look-alike, by a
contrastive loss over the mean of the token states (InfoNCE, arXiv 1807.03748).

A file beside this script is used for every project whose encoder has the weights that it was made for. The
run is deterministic on one machine with one number of threads.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from melo_cli.models.sentence_encoder import load_sentence_encoder
from melo_cli.scope.encoder_tunings import FITS

HERE = Path(__file__).resolve().parent
SEED = 0
LAYERS = 3  # the last ones
TYPES, KINDS = 4, 6  # of each step; of each type two subjects
RATE = 3e-4
TEMPERATURE = 0.05
DROPOUT = 0.05
HURRIED = 0.15  # share of the texts in lower case, without a mark at their end


def main() -> None:
    """Tune, and write the changes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("encoder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    encoder = load_sentence_encoder(options.encoder)
    count = encoder.model.config.num_hidden_layers
    last = "|".join(str(count - at) for at in range(LAYERS, 0, -1))
    targets = rf".*layer\.({last})\..*(query|key|value|dense)"
    settings = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets)
    model: Any = get_peft_model(encoder.model, settings)
    _learn(model, encoder.tokenizer, options.steps)
    changes = _changes(model)
    save_file(changes, options.out, {FITS: encoder.fingerprint["weights"], "encoder": options.encoder})
    sys.stdout.write(f"{options.out}: {len(changes) // 2} modules, {options.out.stat().st_size} bytes\n")


def _learn(model: Any, tokenizer: Any, steps: int) -> None:
    paths = [path for folder in ("families", "templates") for path in sorted((HERE / folder).glob("*.yaml"))]
    types = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = DROPOUT
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    drawn = random.Random(SEED)
    for step in range(steps):
        pairs = [pair for spec in drawn.sample(types, TYPES) for pair in _pairs(spec, drawn)]
        vectors = _vectors(model, tokenizer, [text for at in (0, 1) for text in (pair[at] for pair in pairs)])
        cosines = (vectors @ vectors.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        partner = torch.arange(len(vectors)).roll(len(pairs))
        loss = cross_entropy(cosines, partner)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            right = (cosines.argmax(1) == partner).float().mean()
            sys.stderr.write(f"step {step}: loss {loss.item():.3f}, {right:.3f} find their partner\n")


def _pairs(spec: dict[str, Any], drawn: random.Random) -> list[tuple[str, str]]:
    """Two ways of each of some sibling kinds, about two look-alikes."""
    kinds = list(spec["kinds"].values())
    first = drawn.randrange(max(len(kinds) - KINDS, 0) + 1)
    pair = 2 * drawn.randrange(len(spec["subjects"]) // 2)
    values = [drawn.choice(kind.get("values", [""])) for kind in kinds]
    pairs = []
    for names in spec["subjects"][pair : pair + 2]:
        subject = names[0] if isinstance(names, list) else names
        for kind, value in list(zip(kinds, values, strict=True))[first : first + KINDS]:
            one, other = (_asked(way, subject, value, drawn) for way in drawn.sample(kind["ways"], 2))
            pairs.append((one, other))
    return pairs


def _asked(way: str, subject: object, value: object, drawn: random.Random) -> str:
    text = way.replace("{s}", str(subject)).replace("{x}", str(value))
    return text.rstrip("?.").lower() if drawn.random() < HURRIED else text


def _vectors(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """The mean of the last states of each text, of unit length."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt")
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def _changes(model: Any) -> dict[str, Tensor]:
    """`A` and `B` of each module in half precision, with the scale in `B`."""
    changes = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            A, B = (getattr(module, side)["default"].weight.detach() for side in ("lora_A", "lora_B"))
            changes[f"tuning.{name}.A"] = A.half().contiguous()
            changes[f"tuning.{name}.B"] = (B * module.scaling["default"]).half().contiguous()
    return changes


if __name__ == "__main__":
    main()
