"""A GGUF file as a base model: named by one path, converted once, identified by its fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from melo_cli.errors import BaseMismatchError, ModelError
from melo_cli.models.base_model import load_base_model
from melo_cli.models.gguf import checkpoint_of
from melo_cli.recipe import ModelSection
from melo_cli.runtime.base_reference import base_reference

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

WIDTH, HEADS, LAYERS, INNER = 32, 4, 2, 64


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, quantized to 8 bits, with a byte-level BPE tokenizer in it."""
    path = tmp_path_factory.mktemp("gguf") / "pico.Q8_0.gguf"
    alphabet = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    alphabet += [chr(256 + number) for number in range(256 - len(alphabet))]
    tokens = ["<s>", "</s>", "<pad>", *alphabet, "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    drawn = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = drawn.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{part}.weight", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def section(path: Path) -> ModelSection:
    return ModelSection(name_or_path=str(path), device="cpu")


def test_one_path_names_folder_and_file(model_file: Path) -> None:
    named = section(model_file)
    assert (named.name_or_path, named.gguf_file) == (str(model_file.parent), model_file.name)
    assert named.at("elsewhere").gguf_file == model_file.name
    assert named.at("x/other.gguf").described == "x/other.gguf"


def test_it_answers_as_transformers_reads_it_and_is_read_once(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model_file.parent, gguf_file=model_file.name).eval()
    base = load_base_model(section(model_file), "custom")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, plain(ids).logits)
    assert base.reference.name_or_path == str(model_file.parent)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it is converted again")

    monkeypatch.setattr("melo_cli.models.gguf._convert", fail)
    again = load_base_model(section(model_file), "custom")
    base_reference(again).require_same(base_reference(base))


def test_another_file_is_another_base(model_file: Path, tmp_path: Path) -> None:
    other = tmp_path / model_file.name
    shutil.copyfile(model_file, other)
    with other.open("r+b") as file:
        file.seek(-600, 2)
        file.write(bytes(range(200)) * 3)
    first = base_reference(load_base_model(section(model_file), "custom"))
    with pytest.raises(BaseMismatchError, match="differs in weights"):
        first.require_same(base_reference(load_base_model(section(other), "custom")))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match="broken.gguf: the file cannot be read"):
        checkpoint_of(tmp_path, "broken.gguf")
    with pytest.raises(ModelError, match="there is no such file"):
        load_base_model(section(tmp_path / "none.gguf"), "custom")
