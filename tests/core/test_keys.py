"""A key depends on its prompt alone, and costs no more than the layers before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from melo_cli.encoding import pad_prompts
from melo_cli.keys import KeyExtractor, KeyTransform
from melo_cli.loading import OpenProject

Pico = Callable[..., OpenProject]
LAYERS = {
    "pico_t5": ["encoder.embed_tokens", "encoder.block.1.layer.1.DenseReluDense.wo"],
    "pico_gpt2": ["transformer.wte", "transformer.h.1.mlp.c_fc"],
    "pico_llama": ["model.embed_tokens", "model.layers.1.mlp.down_proj"],
    "pico_bert": ["bert.embeddings.word_embeddings", "bert.encoder.layer.1.output.dense"],
}
PROMPTS = [
    "Who is the prime minister of Britain?",
    "The court holds",
    "what is the name of the river that runs",
]


@pytest.mark.parametrize("pooling", ["last", "first", "mean"])
@pytest.mark.parametrize(("kind", "layer"), [(kind, layer) for kind in LAYERS for layer in LAYERS[kind]])
def test_padding_and_batch_mates_do_not_move_a_key(pico: Pico, kind: str, layer: str, pooling: str) -> None:
    opened = pico(kind)
    base = opened.routed.base
    keys = KeyExtractor(base, layer, KeyTransform(pooling))
    encoded = [opened.encoder.prompt(prompt) for prompt in PROMPTS]
    alone = np.concatenate([keys(pad_prompts(base, [ids])) for ids in encoded])
    for side in ("left", "right"):
        inputs = pad_prompts(base, encoded, side)
        inputs.pop("position_ids", None)
        np.testing.assert_allclose(keys(inputs), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_pooling_takes_the_token_it_names(pico: Pico, kind: str) -> None:
    opened = pico(kind)
    base = opened.routed.base
    ids = opened.encoder.prompt(PROMPTS[0])
    table = base.model.get_input_embeddings().weight.detach().float().numpy()
    layer = LAYERS[kind][0]
    inputs = pad_prompts(base, [ids, opened.encoder.prompt(PROMPTS[2])])
    np.testing.assert_allclose(
        KeyExtractor(base, layer, KeyTransform("last"))(inputs)[0], table[ids[-1]], rtol=1e-5
    )
    np.testing.assert_allclose(
        KeyExtractor(base, layer, KeyTransform("first"))(inputs)[0], table[ids[0]], rtol=1e-5
    )
    np.testing.assert_allclose(
        KeyExtractor(base, layer, KeyTransform("mean"))(inputs)[0],
        table[list(ids)].mean(0),
        rtol=1e-4,
        atol=1e-6,
    )


def test_layers_after_the_key_layer_do_not_run(pico: Pico) -> None:
    opened = pico("pico_gpt2")
    base = opened.routed.base
    ran = []
    base.model.transformer.h[2].register_forward_hook(lambda *_: ran.append(2))
    KeyExtractor(base, "transformer.h.1.mlp.c_fc", KeyTransform("last"))(pad_prompts(base, [(5, 6, 7)]))
    assert ran == []
    with torch.no_grad():
        base.model(torch.tensor([[5, 6, 7]]))
    assert ran == [2]
