"""Adapters that PEFT alone loads, and the router beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefacts import OTHER_PROMPTS, fresh, inputs_of, logits
from peft import PeftConfig, PeftModel
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from melo_cli.editing import EditSummary
from melo_cli.exporting import export_peft
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.prompt_router import router_of_export, router_of_project
from melo_cli.exporting.vllm_config import vllm_settings
from melo_cli.models import base_model
from melo_cli.runtime.loading import OpenProject, open_project
from melo_store.project import Project
from melo_store.writer import open_writer

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_loaded_by_peft_alone_answers_as_the_routed_model(
    peft_folder: Callable[[str], Path], shared: Shared, models: Callable[[str], Path], kind: str
) -> None:
    opened, exported = shared(kind), peft_folder(kind)
    tokenizer = AutoTokenizer.from_pretrained(models(kind))
    live = [view for view in opened.project.edits() if view.status == "live"]
    assert {view.block for view in live} == {"b000001", "b000002"}
    plain = fresh(kind, models(kind))
    for block in opened.project.block_ids():
        alone = PeftModel.from_pretrained(fresh(kind, models(kind)), exported / "adapters" / block).eval()
        for view in live:
            if view.block != block:
                continue
            inputs = inputs_of(kind, tokenizer, view.prompt)
            ours, theirs = logits(opened.routed, inputs), logits(alone, inputs)
            assert opened.routed.routes[0].fired is not None
            assert (ours - theirs).abs().max() < 1e-4
            assert (logits(plain, inputs) - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_of_an_adapter_is_an_ordinary_one(
    peft_folder: Callable[[str], Path], shared: Shared, models: Callable[[str], Path], kind: str
) -> None:
    for block in ("b000001", "b000002"):
        path = peft_folder(kind) / "adapters" / block
        assert names(path) == {"adapter_config.json", "adapter_model.safetensors"}
        config = PeftConfig.from_pretrained(str(path))
        assert (config.peft_type, config.r, config.lora_alpha) == ("LORA", 4, 16)
        assert config.rank_pattern == config.alpha_pattern == {}
        assert config.modules_to_save is None
        assert config.base_model_name_or_path == str(models(kind))
        assert config.fan_in_fan_out == (kind == "pico_gpt2")
        assert set(config.target_modules) == set(shared(kind).recipe.lora.target_modules)
        assert not any("classifier" in name for name in load_file(path / "adapter_model.safetensors"))


def test_the_adapters_name_the_base_that_one_asks_for(shared: Shared, reporter: Any, tmp_path: Path) -> None:
    summary = export_peft(shared("pico_gpt2"), tmp_path / "out", reporter, base_name="openai-community/gpt2")
    configs = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("adapter_config.json")]
    assert [config["base_model_name_or_path"] for config in configs] == ["openai-community/gpt2"] * 2
    assert (summary.format, summary.folder, summary.blocks, summary.figures) == (
        "peft",
        tmp_path / "out",
        2,
        {},
    )
    assert summary.files == len(names(tmp_path / "out"))
    assert summary.bytes == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    job = reporter.jobs[-1]
    weights = [load_file(path) for path in (tmp_path / "out").rglob("adapter_model.safetensors")]
    size = sum(weight.nbytes for adapter in weights for weight in adapter.values())
    assert (job.label, job.total, job.done, job.unit) == ("writing adapters", size, size, "bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_lists_every_edit_that_answers_with_its_adapter(
    peft_folder: Callable[[str], Path], shared: Shared, kind: str
) -> None:
    table = json.loads((peft_folder(kind) / "router" / "routes.json").read_text(encoding="utf-8"))
    standing = [view for view in shared(kind).project.edits() if view.status in ("live", "already_right")]
    assert [(neuron["edit_id"], neuron["prompt"], neuron["adapter"]) for neuron in table["neurons"]] == [
        (view.edit_id, view.prompt, view.block) for view in standing
    ]
    arrays = load_file(peft_folder(kind) / "router" / "keys.safetensors")
    assert arrays["keys"].dtype == np.float32
    np.testing.assert_array_equal(arrays["keys"], [view.record.key for view in standing])


def test_clusters_of_many_members_are_routed_by_their_members(
    edit: Edit, reporter: Any, tmp_path: Path
) -> None:
    # Like questions with one answer; the first does not fire for the later ones: one cluster, two blocks.
    first = [
        {"prompt": "Where does the river end", "target": "Paris"},
        {"prompt": "Which court was it", "target": "John"},
    ]
    later = [{"prompt": f"Where does the river end{end}", "target": "Paris"} for end in ("?", " and")]
    later.append({"prompt": "Which court was it", "target": "Smith"})
    path = edit("pico_gpt2", first, tmp_path / "p", key={"radius": 0.01}).path
    edit("pico_gpt2", later, path, key={"radius": 3.0})
    opened = open_project(path)
    views = opened.project.edits()
    assert [view.status for view in views] == ["live", "superseded", "live", "live", "live"]
    assert max(len(cluster.members) for cluster in opened.project.clusters()) > 1
    export_peft(opened, tmp_path / "out", reporter)
    table = json.loads((tmp_path / "out" / "router" / "routes.json").read_text(encoding="utf-8"))
    assert [neuron["edit_id"] for neuron in table["neurons"]] == [
        view.edit_id for view in views if view.status == "live"
    ]
    prompts = [view.prompt for view in views] + OTHER_PROMPTS
    prompts += ["Where does the river end of", "Where does a river end", "Where does the river end? and"]
    expected = opened.inference.routes(prompts)
    assert [each.route.fired for each in router_of_export(tmp_path / "out").route(prompts)] == [
        route.fired for route in expected
    ]
    assert {route.fired.block if route.fired else None for route in expected} == {"b000001", "b000002", None}


def test_a_project_without_neurons_exports_an_empty_router(edit: Edit, reporter: Any, tmp_path: Path) -> None:
    path = edit("pico_bert", [{"prompt": "who studied law", "target": "criminal"}], tmp_path / "p").path
    with open_writer(Project.open(path)) as writer:
        writer.revert(["e000001"], versions={})
    assert export_peft(open_project(path), tmp_path / "out", reporter).blocks == 0
    table = json.loads((tmp_path / "out" / "router" / "routes.json").read_text(encoding="utf-8"))
    assert table["neurons"] == []
    assert load_file(tmp_path / "out" / "router" / "keys.safetensors")["keys"].shape[0] == 0
    result = router_of_export(tmp_path / "out").route(["who studied law"])[0]
    assert (result.route.fired, result.route.nearest, result.error) == (None, None, None)


def test_blocks_of_other_ranks_and_targets_become_adapters_of_one_shape(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    path = edit("pico_llama", [{"prompt": "who studied law", "target": "London"}], tmp_path / "p").path
    second = [{"prompt": "Where does the river end", "target": "Paris"}]
    edit("pico_llama", second, path, lora={"rank": 2, "alpha": 16})
    opened = open_project(path)
    export_peft(opened, tmp_path / "out", reporter)
    configs = [PeftConfig.from_pretrained(str(folder)) for folder in (tmp_path / "out/adapters").iterdir()]
    assert len(configs) == 2
    assert (
        len({(config.r, config.lora_alpha, tuple(sorted(config.target_modules))) for config in configs}) == 1
    )
    tokenizer = AutoTokenizer.from_pretrained(models("pico_llama"))
    for view in opened.project.edits():
        adapter = tmp_path / "out" / "adapters" / str(view.block)
        alone = PeftModel.from_pretrained(fresh("pico_llama", models("pico_llama")), adapter).eval()
        inputs = inputs_of("pico_llama", tokenizer, view.prompt)
        torch.testing.assert_close(logits(opened.routed, inputs), logits(alone, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "takes"), [("pico_llama", ("yes", "yes", "yes")), ("pico_gpt2", ("no", "check", "yes"))]
)
def test_serve_json_says_how_each_engine_is_started_and_whether_it_takes_them(
    peft_folder: Callable[[str], Path], models: Callable[[str], Path], kind: str, takes: tuple[str, ...]
) -> None:
    document = json.loads((peft_folder(kind) / "serve.json").read_text(encoding="utf-8"))
    assert document["base_model"] == str(models(kind))
    assert document["adapters"] == [
        {"name": name, "path": f"adapters/{name}"} for name in ("b000001", "b000002")
    ]
    engines = document["engines"]
    assert tuple(engines[name]["takes_lora"] for name in ("vllm", "sglang", "lorax")) == takes
    assert all(engine["because"] and engine["source"].startswith("https://") for engine in engines.values())


def vllm_flags(folder: Path) -> dict[str, list[str]]:
    """The values of each flag of vLLM's command line."""
    document = json.loads((folder / "serve.json").read_text(encoding="utf-8"))
    command = document["engines"]["vllm"]["command"]
    starts = [at for at, word in enumerate(command) if word.startswith("--")]
    assert command[: starts[0]] == ["vllm", "serve", document["base_model"]]
    return {
        command[at]: command[at + 1 : end]
        for at, end in zip(starts, [*starts[1:], len(command)], strict=True)
    }


def test_vllm_has_room_for_every_adapter_in_the_dtype_of_the_project(
    peft_folder: Callable[[str], Path],
) -> None:
    flags = vllm_flags(peft_folder("pico_llama"))
    # A rank of four is not among those that vLLM takes.
    assert (flags["--enable-lora"], flags["--max-lora-rank"]) == ([], ["8"])
    assert (flags["--dtype"], flags["--max-loras"], flags["--max-cpu-loras"]) == (["float32"], ["2"], ["2"])
    # Where vLLM's names are not known, the list is left out: it would drop the modules that it lacks.
    assert "--lora-target-modules" not in vllm_flags(peft_folder("pico_gpt2"))


def test_the_sizes_for_vllm_have_bounds() -> None:
    modules = {f"model.layers.{layer}.mlp.down_proj": (14336, 4096) for layer in range(2)}

    def flags(rank: int, adapters: int) -> list[str]:
        shape = BlockShape(rank, 1.0, modules)
        command = vllm_settings("llama", shape, adapters, "base", torch.bfloat16)["command"]
        return [command[command.index(f"--max-{name}") + 1] for name in ("lora-rank", "loras", "cpu-loras")]

    assert flags(1, 0) == ["1", "1", "1"]
    assert flags(1, 500) == ["1", "16", "500"]
    # An adapter of 147456 values in two bytes each, in 4 GiB.
    assert flags(4, 100_000) == ["8", "16", str(2**32 // (4 * 2 * 18432 * 2))]
    assert flags(512, 3) == ["512", "3", "3"]


def test_vllm_is_told_the_packed_modules_in_full(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    targets = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_llama", rows, tmp_path / "p", lora={"rank": 1, "target_modules": targets}).path
    opened = open_project(path, weights=False)
    export_peft(opened, tmp_path / "out", reporter)
    flags = vllm_flags(tmp_path / "out")
    layers = range(opened.routed.config.num_hidden_layers)
    packed = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    assert flags["--lora-target-modules"] == [f"model.layers.{n}.{name}" for n in layers for name in packed]
    # Edited in float32, though its weights are left on disk here.
    assert (flags["--max-lora-rank"], flags["--dtype"]) == (["1"], ["float32"])


def test_what_vllm_needs_is_read_without_shutting_other_plugins_out(
    peft_folder: Callable[[str], Path],
) -> None:
    document = json.loads((peft_folder("pico_llama") / "serve.json").read_text(encoding="utf-8"))
    assert set(document["engines"]["vllm"]["environment"]) == {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_LORA_RESOLVER_CACHE_DIR",
    }


@pytest.mark.parametrize(("template", "endpoint"), [("none", "completions"), ("chat", "chat/completions")])
def test_serve_json_names_the_endpoint_that_asks_as_the_edits_were_made(
    edit: Edit, models: Callable[[str], Path], reporter: Any, tmp_path: Path, template: str, endpoint: str
) -> None:
    model = {"template": template, "dtype": "bfloat16"}
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_llama", rows, tmp_path / "p", model=model).path
    export_peft(open_project(path, weights=False), tmp_path / "out", reporter)
    document = json.loads((tmp_path / "out" / "serve.json").read_text(encoding="utf-8"))
    assert document["endpoint"] == f"/v1/{endpoint}"
    assert vllm_flags(tmp_path / "out")["--dtype"] == ["bfloat16"]


@pytest.mark.parametrize("layer", ["model.embed_tokens", "model.layers.0.mlp.down_proj"])
def test_a_router_loads_no_more_of_the_base_than_it_reads(
    edit: Edit, reporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    rows = [{"prompt": "who studied law", "target": "London"}]
    path = edit("pico_llama", rows, tmp_path / "p", key={"layer": layer, "radius": 0.01}).path
    export_peft(open_project(path, weights=False), tmp_path / "out", reporter)
    loaded = []
    whole = base_model._with_weights
    monkeypatch.setattr(base_model, "_with_weights", lambda *args: loaded.append(args) or whole(*args))
    prompts = ["who studied law", "Where does the river end"]
    for router in (router_of_project(path), router_of_export(tmp_path / "out")):
        routes = [each.route.fired for each in router.route(prompts)]
        assert [fired.block if fired else None for fired in routes] == ["b000001", None]
    assert len(loaded) == (0 if layer == "model.embed_tokens" else 2)
