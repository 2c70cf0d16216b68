"""Carries a trained model into a larger published shape, with the answers that it had.

    python benchmarks/widen_model.py --model FOLDER --shape bert-base --out build/bert-base-trained

A speed at equal edit success needs a trained model in the shape that is measured. Features and attention
heads are repeated until the width is the shape's, and the weights that read them are divided by the number of
copies. Missing layers are added first and pass on their input (Net2Net, arXiv 1511.05641). The vocabulary
stays the model's own. Prints the largest difference between the logits of the two models.
"""

from __future__ import annotations

import argparse
import copy
import re
from pathlib import Path

import torch
from make_random_model import SHAPES
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

_CLASSES = {
    "gpt2": AutoModelForCausalLM,
    "t5": AutoModelForSeq2SeqLM,
    "bert": AutoModelForSequenceClassification,
}
_LAYER = re.compile(r"(.*?\.(?:h|block|layer)\.)(\d+)(\..*)")
_EMBEDDING = re.compile(r"(embeddings?|wte|wpe|shared|embed_tokens|lm_head|relative_attention_bias)\.weight$")
# What a layer adds to the residual stream.
_ADDED = re.compile(r"\.(c_proj|o|wo|output\.dense)\.(weight|bias)$")
# The axis over all heads: of what makes queries, keys and values, and of what reads the heads.
_MAKES_HEADS = re.compile(r"\.(q|k|v|query|key|value|c_attn)\.(weight|bias)$")
_READS_HEADS = re.compile(r"(\.o|attn\.c_proj|attention\.output\.dense)\.weight$")
_BERT_FIRST_NORM = "bert.embeddings.LayerNorm"
_PARTS = ("attention.", "")
_TOKENS = 48
_TOLERANCE = 1e-3


def main() -> None:
    """Widen, compare, save."""
    arguments = _arguments()
    config = AutoConfig.from_pretrained(arguments.model)
    if not arguments.shape.startswith(config.model_type):
        raise SystemExit(f"a {config.model_type} does not take the shape {arguments.shape}")
    auto_class = _CLASSES[config.model_type]
    narrow = auto_class.from_pretrained(arguments.model, dtype=torch.float32)
    wide = auto_class.from_config(_wide_config(config, arguments.shape), dtype=torch.float32).eval()
    wide.load_state_dict(_widened(narrow, wide))
    difference = _logit_difference(narrow, wide)
    if not difference < _TOLERANCE:
        raise SystemExit(
            f"the logits of the two models differ by {difference:.1e}: this model cannot be widened"
        )
    wide.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(arguments.model).save_pretrained(arguments.out)
    print(  # noqa: T201
        f"{arguments.out}: {wide.num_parameters():,} parameters of {narrow.num_parameters():,}, "
        f"logits differ by {difference:.1e}"
    )


def _wide_config(config: PreTrainedConfig, shape: str) -> PreTrainedConfig:
    wide = copy.deepcopy(config)
    for name, size in SHAPES[shape].items():
        setattr(wide, name, size)
    if config.model_type == "t5":
        wide.num_decoder_layers = wide.num_layers
    return wide


def _widened(narrow: PreTrainedModel, wide: PreTrainedModel) -> dict[str, Tensor]:
    weights = narrow.state_dict()
    missing = wide.config.num_hidden_layers - narrow.config.num_hidden_layers
    result = {}
    for name, weight in wide.state_dict().items():
        source, passes = name, False
        if match := _LAYER.match(name):
            before, layer, after = match.groups()
            passes = int(layer) < missing
            source = f"{before}{max(int(layer) - missing, 0)}{after}"
        if passes and _ADDED.search(name):
            result[name] = torch.zeros_like(weight)
        else:
            result[name] = _repeated(weights[source], weight.shape, name, narrow.config, wide.config)
    if missing and narrow.config.model_type == "bert":
        _pass_on_normalized(result, missing)
    return result


def _repeated(
    weight: Tensor, shape: torch.Size, name: str, narrow: PreTrainedConfig, wide: PreTrainedConfig
) -> Tensor:
    """A parameter of the larger shape, from the one of the same name."""
    # GPT-2's Conv1D holds its inputs first.
    transposed = narrow.model_type == "gpt2" and weight.dim() == 2
    inputs, outputs = (0, 1) if transposed else (1, 0)
    by_head = outputs if _MAKES_HEADS.search(name) else inputs if _READS_HEADS.search(name) else None
    if weight.dim() == 2 and not _EMBEDDING.search(name):
        weight = weight * (weight.shape[inputs] / shape[inputs])
    heads, head_times = narrow.num_attention_heads, wide.num_attention_heads // narrow.num_attention_heads
    for axis, size in enumerate(shape):
        times = size // weight.shape[axis]
        if axis == by_head:
            sets = weight.unflatten(axis, (-1, _head_size(narrow)))
            assert sets.shape[axis] % heads == 0
            sets = sets.repeat_interleave(head_times, axis).repeat_interleave(times // head_times, axis + 1)
            weight = sets.flatten(axis, axis + 1)
        else:
            weight = weight.repeat_interleave(times, axis)
    return weight * _scale(name, narrow, wide)


def _scale(name: str, narrow: PreTrainedConfig, wide: PreTrainedConfig) -> float:
    """What keeps scores and logits as they were, which are sums over more features now."""
    times = wide.hidden_size / narrow.hidden_size
    if name.startswith("transformer.ln_f."):
        return 1 / times
    if name == "decoder.final_layer_norm.weight":
        return float(times**-0.5)  # T5 divides its logits by the root of its width
    if ".query." in name:
        return float((_head_size(wide) / _head_size(narrow)) ** -0.5)
    return 1.0


def _pass_on_normalized(weights: dict[str, Tensor], missing: int) -> None:
    """BERT's layers end in a norm: ones and zeros pass on what is normalized, and the last norm scales."""
    norms = [
        f"bert.encoder.layer.{layer}.{part}output.LayerNorm" for layer in range(missing) for part in _PARTS
    ]
    for kind, neutral in (("weight", torch.ones_like), ("bias", torch.zeros_like)):
        own = weights[f"{_BERT_FIRST_NORM}.{kind}"]
        weights |= {f"{norm}.{kind}": neutral(own) for norm in [_BERT_FIRST_NORM, *norms]}
        weights[f"{norms[-1]}.{kind}"] = own


def _head_size(config: PreTrainedConfig) -> int:
    return int(getattr(config, "d_kv", config.hidden_size // config.num_attention_heads))


@torch.no_grad()
def _logit_difference(narrow: PreTrainedModel, wide: PreTrainedModel) -> float:
    ids = torch.randint(5, narrow.config.vocab_size, (2, _TOKENS), generator=torch.Generator().manual_seed(0))
    more = {"decoder_input_ids": ids[:, :4]} if narrow.config.is_encoder_decoder else {}
    return float((narrow(ids, **more).logits - wide(ids, **more).logits).abs().max())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a trained model's folder")
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
