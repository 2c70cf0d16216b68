"""Makes a model of a published shape with random weights: for measuring size and speed, not answers.

    python benchmarks/make_random_model.py --shape gpt2-xl --tokenizer FOLDER --out build/gpt2-xl-random

The tokenizer is copied from any folder whose vocabulary is not larger than the model's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    T5Config,
)

from melo_cli.exporting.tensor_files import TensorSpec, write_tensors

# As published in the checkpoints' own config.json.
SHAPES = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    "t5-small": {"d_model": 512, "d_ff": 2048, "d_kv": 64, "num_layers": 6, "num_heads": 8},
    "bert-base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
_AREAS = ("CivilRights", "CriminalProcedure", "EconomicActivity", "JudicialPower", "Other")


def main() -> None:
    """Draw the weights from a normal distribution, tensor by tensor: the model never stands in memory."""
    arguments = _arguments()
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    dtype = getattr(torch, arguments.dtype)
    with torch.device("meta"):
        model = _model(arguments.shape, tokenizer.eos_token_id, tokenizer.pad_token_id, dtype)
    model.tie_weights()
    model.config.architectures = [type(model).__name__]
    # Tied weights come once.
    specs = [TensorSpec(name, dtype, tuple(weight.shape)) for name, weight in model.named_parameters()]
    arguments.out.mkdir(parents=True)
    model.config.save_pretrained(arguments.out)
    if model.can_generate():
        model.generation_config.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    torch.manual_seed(0)
    write_tensors(arguments.out / "model.safetensors", specs, _drawn, lambda _: None)
    print(f"{arguments.out}: {model.num_parameters():,} parameters, {arguments.dtype}")  # noqa: T201


def _is_norm_scale(name: str) -> bool:
    is_norm = "ln_" in name or "layer_norm" in name or "LayerNorm" in name
    return is_norm and name.endswith("weight")


def _drawn(spec: TensorSpec) -> Iterator[torch.Tensor]:
    weight = torch.empty(spec.shape, dtype=spec.dtype)
    if len(spec.shape) > 1:
        yield torch.nn.init.normal_(weight, std=0.02)
    else:
        yield torch.nn.init.constant_(weight, 1.0 if _is_norm_scale(spec.name) else 0.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    return parser.parse_args()


def _model(shape: str, eos: int, pad: int, dtype: torch.dtype) -> torch.nn.Module:
    sizes = SHAPES[shape]
    if shape.startswith("gpt2"):
        config = GPT2Config(**sizes, bos_token_id=eos, eos_token_id=eos, pad_token_id=pad)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
    if shape.startswith("bert"):
        config = BertConfig(**sizes, id2label=dict(enumerate(_AREAS)))
        return AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    config = T5Config(**sizes, decoder_start_token_id=pad, eos_token_id=eos, pad_token_id=pad)
    return AutoModelForSeq2SeqLM.from_config(config, dtype=dtype)


if __name__ == "__main__":
    main()
