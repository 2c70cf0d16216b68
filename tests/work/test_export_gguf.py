"""Adapters for llama.cpp: each file holds its block, and llama.cpp answers under it as the project does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pico_gguf import write_pico_gguf

from melo_cli.editing import EditSummary
from melo_cli.errors import ArtefactError, ExportError
from melo_cli.exporting import export_gguf
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.expected_outputs import expected_outputs
from melo_cli.exporting.llama_cpp import check as check_module
from melo_cli.exporting.llama_cpp import export as export_module
from melo_cli.exporting.prompt_router import router_of_export
from melo_cli.models.architecture import list_modules
from melo_cli.models.base_model import load_base_model
from melo_cli.recipe import ModelSection
from melo_cli.runtime.loading import OpenProject, open_project
from melo_store.records import Block, LoraSlice

gguf = pytest.importorskip("gguf")
from melo_cli.exporting.llama_cpp.files import AdapterFiles, read_adapter  # noqa: E402
from melo_cli.exporting.llama_cpp.layout import GgufLayout  # noqa: E402

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]

# llama.cpp's names of the modules, by the ends of transformers' names.
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
}
PERMUTED = ("llama", "mistral", "granite", "smollm3")
OTHERS = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "olmo2", "starcoder2", "gpt2")


def random_block(shape: BlockShape) -> Block:
    drawn = np.random.default_rng(3)

    def some(*size: int) -> NDArray[np.float32]:
        return drawn.normal(size=size).astype(np.float32)

    slices = {
        name: LoraSlice(some(shape.rank, inputs), some(outputs, shape.rank), shape.scale)
        for name, (inputs, outputs) in shape.modules.items()
    }
    return Block("b000001", slices)


def in_llama_order(delta: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The rows of each head's halves in turn: llama.cpp rotates neighbours."""
    size = len(delta) // heads
    order = [
        head * size + half * (size // 2) + feature
        for head in range(heads)
        for feature in range(size // 2)
        for half in range(2)
    ]
    return delta[order]


@pytest.mark.parametrize("name", [*PERMUTED, *OTHERS])
def test_a_file_adds_to_each_weight_what_the_block_adds(
    built: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    base = load_base_model(ModelSection(name_or_path=str(built(name)), device="cpu"), "custom", weights=False)
    shape = BlockShape(4, 2.5, {info.name: info.shape for info in list_modules(base) if info.is_target})
    block, config = random_block(shape), base.model.config
    layout = GgufLayout.of(base, config)
    AdapterFiles(layout, torch.float32).write(block, shape, tmp_path / "x.gguf")
    adapter = read_adapter(tmp_path / "x.gguf")
    assert dict(adapter.fields) == {
        "general.architecture": "llama" if name == "mistral" else name,
        "general.type": "adapter",
        "adapter.type": "lora",
    }
    assert adapter.alpha == 10
    heads = {"q_proj": config.num_attention_heads, "k_proj": getattr(config, "num_key_value_heads", None)}
    left = set(adapter.tensors)
    for module, piece in block.slices.items():
        end = module.rsplit(".", 2)[-2:]
        weight = f"blk.{module.split('.')[2]}.{TENSORS['.'.join(end)]}.weight"
        A, B = adapter.tensors[f"{weight}.lora_a"], adapter.tensors[f"{weight}.lora_b"]
        wanted = piece.scale * piece.B @ piece.A
        if name in PERMUTED and end[1] in heads:
            wanted = in_llama_order(wanted, heads[end[1]])
        np.testing.assert_allclose(adapter.alpha / len(A) * B @ A, wanted, rtol=1e-5, atol=1e-5)
        left -= {f"{weight}.lora_a", f"{weight}.lora_b"}
    assert left == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_is_read_back_as_its_block_and_no_other(
    models: Callable[[str], Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    base = load_base_model(
        ModelSection(name_or_path=str(models("pico_llama")), device="cpu"), "custom", weights=False
    )
    shape = BlockShape(2, 1.0, {info.name: info.shape for info in list_modules(base) if info.is_target})
    block = random_block(shape)
    files = AdapterFiles(GgufLayout.of(base, base.model.config), dtype)
    files.write(block, shape, tmp_path / "x.gguf")
    files.require_block(block, shape, tmp_path / "x.gguf")
    module = "model.layers.0.self_attn.q_proj"
    moved = block.slices[module].B[::-1].copy()
    other = Block("b000001", {**block.slices, module: LoraSlice(block.slices[module].A, moved, 1.0)})
    with pytest.raises(ArtefactError, match="adapter b000001, read back from its file, is not the block"):
        files.require_block(other, shape, tmp_path / "x.gguf")
    with pytest.raises(ArtefactError):
        files.require_block(block, BlockShape(2, 2.0, shape.modules), tmp_path / "x.gguf")


def test_an_export_holds_adapters_router_and_the_servers_command(
    shared: Shared, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    opened = shared("pico_llama")
    summary = export_gguf(opened, tmp_path / "out", reporter, check=2)
    assert (summary.format, summary.blocks) == ("gguf", 2)
    assert sorted(path.name for path in (tmp_path / "out/adapters").iterdir()) == [
        "b000001.gguf",
        "b000002.gguf",
    ]
    document = json.loads((tmp_path / "out/serve.json").read_text(encoding="utf-8"))
    assert document["endpoint"] == "/v1/completions"
    assert [(each["name"], each["id"]) for each in document["adapters"]] == [("b000001", 0), ("b000002", 1)]
    server = document["engines"]["llama-server"]
    assert server["command"] == [
        *("llama-server", "-m", "BASE.gguf"),
        *("--lora-scaled", "adapters/b000001.gguf:0,adapters/b000002.gguf:0"),
    ]
    assert server["convert"] == [
        *("python", "convert_hf_to_gguf.py", str(models("pico_llama"))),
        *("--outfile", "BASE.gguf", "--outtype", "f32"),
    ]
    # An empty list would leave the server's own scales in force.
    assert server["routes"] == {
        "base": {"lora": [{"id": 0, "scale": 0.0}]},
        "b000001": {"lora": [{"id": 0, "scale": 1.0}]},
        "b000002": {"lora": [{"id": 1, "scale": 1.0}]},
    }
    prompts = [edit.prompt for edit in opened.project.edits()]
    routes = [each.route.fired for each in router_of_export(tmp_path / "out").route(prompts)]
    assert routes == [route.fired for route in opened.inference.routes(prompts)]
    said = "each of 2 adapters, read back from its file, is its block; llama.cpp was not asked, because "
    said += "the base model is not a GGUF file"
    assert reporter.infos[-1] == said
    assert f"Checked: {said}." in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_file_that_is_not_its_block_is_not_put_in_place(
    shared: Shared, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = AdapterFiles._add

    def doubled(self: AdapterFiles, writer: Any, name: str, values: NDArray[np.float32]) -> None:
        inner(self, writer, name, 2 * values)

    monkeypatch.setattr(AdapterFiles, "_add", doubled)
    with pytest.raises(ArtefactError, match="is not the block; nothing was written"):
        export_gguf(shared("pico_llama"), tmp_path / "out", reporter, check=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pico_t5", "pico_bert"])
def test_an_architecture_that_is_not_known_to_be_right_is_refused(
    shared: Shared, reporter: Any, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(ExportError, match="melo writes no GGUF adapters for") as caught:
        export_gguf(shared(kind), tmp_path / "out", reporter)
    assert "use --format peft; GGUF adapters are for text generation with gemma, gemma2," in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_llama_cpp_does_not_have_is_refused(models: Callable[[str], Path]) -> None:
    section = ModelSection(name_or_path=str(models("pico_llama")), device="cpu")
    base = load_base_model(section, "custom", weights=False)
    with pytest.raises(ExportError, match="llama.cpp has no tensor for module model.layers.0.mlp.other"):
        GgufLayout.of(base, base.model.config).tensor("model.layers.0.mlp.other")


def test_an_old_package_gguf_is_to_be_upgraded(
    shared: Shared, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {number: name for number, name in gguf.MODEL_ARCH_NAMES.items() if name != "llama"}
    monkeypatch.setattr(gguf, "MODEL_ARCH_NAMES", names)
    with pytest.raises(ExportError, match="the installed package gguf does not know architecture llama"):
        export_gguf(shared("pico_llama"), tmp_path / "out", reporter)


def test_without_the_package_gguf_the_error_says_how_to_get_it(
    shared: Shared, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="need the package gguf; pip install 'melo-cli\\[gguf\\]'"):
        export_gguf(shared("pico_llama"), tmp_path / "out", reporter)


@pytest.fixture(scope="module")
def on_gguf(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> OpenProject:
    """A project on a GGUF file, with every linear module of both layers as target."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("on-gguf")
    base = write_pico_gguf(folder / "pico.F32.gguf", "F32")
    rows = [
        {"prompt": "Who is it?", "target": "Ann"},
        {"prompt": "Where does the river end", "target": "sea", "locality": ["What was built in 1889?"]},
    ]
    changes = {
        "model": {"name_or_path": str(base)},
        "key": {"layer": "model.embed_tokens", "radius": 0.01},
        "lora": {"rank": 4, "alpha": 16, "target_modules": r".*_proj"},
        "training": {"batch_size": 1, "max_steps": 120},
    }
    summary = edit("pico_llama", rows, folder / "p", **changes)
    assert summary.failures == []
    return open_project(summary.path)


def test_the_projects_own_gguf_file_is_the_servers_base(
    on_gguf: OpenProject, reporter: Any, tmp_path: Path
) -> None:
    export_gguf(on_gguf, tmp_path / "out", reporter)
    export_gguf(on_gguf, tmp_path / "named", reporter, base_name="/models/pico.gguf")
    servers = [
        json.loads((tmp_path / name / "serve.json").read_text())["engines"]["llama-server"]
        for name in ("out", "named")
    ]
    assert [server["command"][2] for server in servers] == [
        str(on_gguf.routed.base.gguf),
        "/models/pico.gguf",
    ]
    assert not any("convert" in server for server in servers)
    assert "Checked: nothing was checked." in (tmp_path / "out/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", [0, 1])
def test_too_many_other_answers_of_llama_cpp_leave_nothing(
    on_gguf: OpenProject, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    expected = expected_outputs(on_gguf, {"count": 2}, reporter)["expected"]
    # What the base answers says nothing of an adapter.
    given = [
        each | {"answer": each["answer"] if each["adapter"] and at >= wrong else []}
        for at, each in enumerate(expected)
    ]
    monkeypatch.setattr(check_module, "find_spec", lambda name: name == "llama_cpp")
    monkeypatch.setattr(check_module, "ask_both", lambda *_, gguf: (expected, given))
    if wrong:
        with pytest.raises(ArtefactError, match="llama.cpp answers 1 of 2 prompts of the edits"):
            export_gguf(on_gguf, tmp_path / "out", reporter, check=2)
        assert list(tmp_path.iterdir()) == []
    else:
        export_gguf(on_gguf, tmp_path / "out", reporter, check=2)
        assert reporter.infos[-1].endswith(
            "llama.cpp answers 2 of 2 prompts of the edits as the project does"
        )


def test_llama_cpp_answers_as_the_project_does(on_gguf: OpenProject, reporter: Any, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    export_gguf(on_gguf, tmp_path / "out", reporter, check=4)
    assert reporter.infos[-1].endswith("llama.cpp answers 2 of 2 prompts of the edits as the project does")


def test_llama_cpp_has_the_projects_logits_under_each_adapter(
    on_gguf: OpenProject, reporter: Any, tmp_path: Path
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    export_gguf(on_gguf, tmp_path / "out", reporter)
    for edit in on_gguf.project.edits():
        ids = list(on_gguf.encoder.prompt(edit.prompt))
        path = str(tmp_path / "out/adapters" / f"{edit.block}.gguf")
        llama = llama_cpp.Llama(
            str(on_gguf.routed.base.gguf), lora_path=path, n_ctx=128, logits_all=True, verbose=False
        )
        llama.eval(ids)
        with torch.no_grad():
            wanted = on_gguf.routed(torch.tensor([ids])).logits[0].numpy()
        assert on_gguf.routed.routes[0].fired is not None
        np.testing.assert_allclose(llama.scores[: len(ids)], wanted, atol=0.05)
