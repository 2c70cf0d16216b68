"""A key of the rule `radius` depends on its prompt alone, and costs no more than the layers before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.pooling import KeyTransform

Pico = Callable[..., OpenProject]
LAYERS = {
    "pico_t5": ["encoder.embed_tokens", "encoder.block.1.layer.1.DenseReluDense.wo"],
    "pico_gpt2": ["transformer.wte", "transformer.h.1.mlp.c_fc"],
    "pico_llama": ["model.embed_tokens", "model.layers.1.mlp.down_proj"],
    "pico_bert": ["bert.embeddings.word_embeddings", "bert.encoder.layer.0.output.dense"],
}
PROMPTS = [
    "Who is the prime minister of Britain?",
    "The court holds",
    "what is the name of the river that runs",
]


def keyed(pico: Pico, kind: str, layer: str, pooling: str) -> OpenProject:
    return pico(kind, key={"layer": layer, "pooling": pooling, "radius": 0.5})


def keys_of(opened: OpenProject, prompts: list[str]) -> NDArray[np.float32]:
    return np.stack([record.key for record in opened.routed.router.records(prompts, [None] * len(prompts))])


@pytest.mark.parametrize("pooling", ["last", "first", "mean"])
@pytest.mark.parametrize(("kind", "layer"), [(kind, layer) for kind in LAYERS for layer in LAYERS[kind]])
def test_batch_mates_do_not_move_a_key(pico: Pico, kind: str, layer: str, pooling: str) -> None:
    opened = keyed(pico, kind, layer, pooling)
    alone = np.concatenate([keys_of(opened, [prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(keys_of(opened, PROMPTS), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_pooling_takes_the_token_it_names(pico: Pico, kind: str) -> None:
    base = pico(kind).routed.base
    ids = base.tokenizer(PROMPTS[0]).input_ids
    table = base.model.get_input_embeddings().weight.detach().float().numpy()
    expected = {"last": table[ids[-1]], "first": table[ids[0]], "mean": table[ids].mean(0)}
    for pooling, state in expected.items():
        keys = keys_of(keyed(pico, kind, LAYERS[kind][0], pooling), [PROMPTS[0], PROMPTS[2]])
        np.testing.assert_allclose(keys[0], state, rtol=1e-4, atol=1e-6)


def test_layers_after_the_key_layer_do_not_run(pico: Pico) -> None:
    opened = keyed(pico, "pico_gpt2", "transformer.h.1.mlp.c_fc", "last")
    model = opened.routed.base.model
    ran = []
    model.transformer.h[2].register_forward_hook(lambda *_: ran.append(2))
    keys_of(opened, PROMPTS[:1])
    assert ran == []
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert ran == [2]


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "learned"])
def test_padding_on_either_side_does_not_move_a_key(pooling: str) -> None:
    """`learned` and what is learnt behind it come from projects of format 2."""
    torch.manual_seed(0)
    hidden = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    arrays = {"token_weights": torch.randn(8), "center": torch.randn(8), "projection": torch.randn(8, 3)}
    transform = KeyTransform.from_arrays({"pooling": pooling, "unit": True}, arrays)
    alone = torch.cat([transform(hidden[:1, :3], mask[:1, :3]), transform(hidden[1:, 2:], mask[1:, 2:])])
    torch.testing.assert_close(transform(hidden, mask), alone)
    torch.testing.assert_close(alone.norm(dim=-1), torch.ones(2))
