"""Exports take the routes that the project takes: by both rules, with a sentence encoder, of chats."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from melo_cli.app import main
from melo_cli.editing import EditSummary
from melo_cli.exporting import export_peft, export_routed
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, load, open_project
from melo_cli.scope.core.rules import Route

WAYS = ("verified", "radius", "encoder")
KINDS = {"verified": "pico_llama", "radius": "pico_t5", "encoder": "pico_gpt2"}
PLACES = ["Britain", "Cologne", "Paris", "the river"]
ASKED = ["Who runs {}?", "When was {} built?", "What is the price of a ticket to {} in 1934?"]
PROMPTS = [asked.format(place) for asked in ASKED for place in PLACES]
FORMS = [
    *("{}", "{} ", "Hello. {} Thanks a lot.", "I was born in London. {}", "{} And by whom?"),
    *("Please tell me: {}", "Is it known? {}", "It is 1934 now. I studied law. {} I have to know it."),
]
OTHERS = ["Lyon", "Smith", "London", "the tower", "the court"]
UNRELATED = [
    "studied law",
    "waht is the pirce of a tikcet to cologne in 1934",
    "who rnus paris",
    "The court holds it.",
    "name the city",
    "Who was John?",
    "1934",
    "Is it Paris?",
]
TURNS = [
    {"role": "system", "content": "You speak of Cologne. When was Cologne built?"},
    {"role": "user", "content": PROMPTS[1]},
    {"role": "assistant", "content": "John Smith."},
]

# Runs without melo and PEFT, as for a user who has only the folders.
SCRIPT = """
import json, sys
for name in ("melo_cli", "melo_store", "peft", "hnswlib", "pyarrow"):
    sys.modules[name] = None
import torch, transformers
from pathlib import Path
inputs = json.loads(Path(sys.argv[1]).read_text())
results = {}

def as_lists(routes):
    return [[r.fired.edit_id, r.fired.block] if r.fired else None for r in routes], [
        [r.nearest.edit_id, r.nearest.distance, r.nearest.probability] for r in routes
    ]

def in_batches(route, tokenizer, ids):
    routes = []
    for start in range(0, len(ids), 16):
        batch = tokenizer.pad({"input_ids": ids[start : start + 16]}, return_tensors="pt")
        routes += route(batch["input_ids"], batch["attention_mask"])
    return as_lists(routes)

for way, each in inputs.items():
    auto = getattr(transformers, each["auto_class"])
    for folder in (each["routed"], each["copy"]):
        model = auto.from_pretrained(folder, trust_remote_code=True).eval()
        if folder == each["routed"]:
            model.save_pretrained(each["copy"])
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        results[f"{way}, {'copy' if folder == each['copy'] else 'routed'}"] = in_batches(
            model.route, tokenizer, each["ids"]
        )
        chats = torch.tensor(each["chat"])
        model.generate(chats, max_new_tokens=2, do_sample=False)
        results[f"{way}, chat"] = as_lists(model.routes)
        results[f"{way}, parameters"] = sorted(model.state_dict())
    sys.path.insert(0, each["peft"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "router"]:
        del sys.modules[name]
    from router.exported import open_router
    base = auto.from_pretrained(each["base"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(each["base"])
    router = open_router(each["peft"] + "/router", base, tokenizer)
    results[f"{way}, router alone"] = as_lists(router.routes(each["texts"]))
Path(sys.argv[2]).write_text(json.dumps(results))
"""


@dataclass(frozen=True)
class Exported:
    """A project and its exports."""

    opened: OpenProject
    routed: Path
    peft: Path


def texts() -> list[str]:
    """Edits, in other words and letters, within other text, about others, and about nothing of it."""
    own = [form.format(prompt) for form in FORMS for prompt in PROMPTS]
    others = [form.format(asked.format(other)) for form in FORMS for asked in ASKED for other in OTHERS]
    return [
        *own,
        *(prompt.lower() for prompt in PROMPTS),
        *others,
        *(f"{word}?" for word in PLACES),
        *UNRELATED,
    ]


@pytest.fixture(scope="module")
def exported(
    edit: Callable[..., EditSummary],
    models: Callable[[str], Path],
    verified: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Exported]:
    """By way of routing a project of twelve edits, as a routed folder and as adapters."""
    folder = tmp_path_factory.mktemp("exported")
    answers = ["London", "John", "law", "1889"]
    rows = [{"prompt": prompt, "target": answers[at % 4]} for at, prompt in enumerate(PROMPTS)]
    made = {}
    for way in WAYS:
        changes: dict[str, Any] = {"key": {"radius": 2.0}}
        if way == "verified":
            changes = verified | {"model": {"template": "chat"}}
        if way == "encoder":
            changes = verified | {"key": verified["key"] | {"encoder": str(models("pico_bert"))}}
        path = edit(KINDS[way], rows, folder / way, task="custom", **changes).path
        opened = open_project(path)
        export_routed(opened, folder / f"{way}-routed", SilentReporter())
        export_peft(opened, folder / f"{way}-peft", SilentReporter())
        made[way] = Exported(opened, folder / f"{way}-routed", folder / f"{way}-peft")
    return made


def chats(opened: OpenProject) -> list[list[int]]:
    """Conversations whose last turn asks for the first edit; where there is no template, the prompt alone."""
    if not opened.routed.tokenizer.chat_template:
        return [list(opened.encoder.prompt(PROMPTS[0]))]
    turns = [*TURNS, {"role": "user", "content": PROMPTS[0]}]
    written = opened.routed.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return [opened.routed.tokenizer(written, add_special_tokens=False).input_ids]


@pytest.fixture(scope="module")
def results_without_melo(
    exported: dict[str, Exported], models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What routed folders, copies that transformers saved of them, and peft's `router/` say without melo."""
    folder = tmp_path_factory.mktemp("alone")
    inputs = {
        way: {
            "auto_class": each.opened.routed.base.kind.auto_class,
            "routed": str(each.routed),
            "copy": str(folder / way),
            "peft": str(each.peft),
            "base": str(models(KINDS[way])),
            "texts": texts(),
            "ids": [list(each.opened.encoder.prompt(text)) for text in texts()],
            "chat": chats(each.opened),
        }
        for way, each in exported.items()
    }
    (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    command = [sys.executable, "-P", "-c", SCRIPT, str(folder / "inputs.json"), str(folder / "results.json")]
    subprocess.run(command, env=environment, cwd=folder, check=True, timeout=300)
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def fired(routes: list[Route]) -> list[list[str | None] | None]:
    return [[each.fired.edit_id, each.fired.block] if each.fired else None for each in routes]


@pytest.mark.parametrize("router", ["routed", "copy", "router alone"])
@pytest.mark.parametrize("way", WAYS)
def test_prompts_go_where_the_project_sends_them(
    exported: dict[str, Exported], results_without_melo: dict[str, Any], way: str, router: str
) -> None:
    asked = texts()
    assert len(asked) >= 200
    project = exported[way].opened.inference.routes(asked)
    routes, nearest = results_without_melo[f"{way}, {router}"]
    assert routes == fired(project)
    for (edit_id, distance, probability), route in zip(nearest, project, strict=True):
        assert route.nearest is not None
        assert edit_id == route.nearest.edit_id
        assert distance == pytest.approx(route.nearest.distance, abs=1e-4)
        assert (probability is None) == (way == "radius")
        assert probability == pytest.approx(route.nearest.probability, abs=1e-3)
    edits = [route[0] if route else None for route in routes]
    assert edits[: len(PROMPTS)] == [f"e{at:06d}" for at in range(1, len(PROMPTS) + 1)], "their own prompts"
    assert sum(edit is not None for edit in edits[len(PROMPTS) :]) >= len(PROMPTS), "others fire"
    assert edits.count(None) >= 20, "and others do not"


@pytest.mark.parametrize("way", WAYS)
def test_melo_route_names_the_adapters_of_the_project(
    exported: dict[str, Exported],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = texts()
    lines = "".join(f"{json.dumps({'prompt': text})}\n" for text in asked).encode()
    project = exported[way].opened.inference.routes(asked)
    for source in (["--router", exported[way].peft], ["--project", exported[way].opened.project.path]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        capsys.readouterr()
        assert main(["route", *map(str, source)]) == 0
        documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [each["prompt"] for each in documents] == asked
        routes = [[each["edit_id"], each["route"]] if "edit_id" in each else None for each in documents]
        assert routes == fired(project)
        assert all(each["route"] == "base" for each in documents if "edit_id" not in each)
        assert all((each["probability"] is None) == (way == "radius") for each in documents)


@pytest.mark.parametrize("way", WAYS)
def test_of_a_conversation_the_last_user_turn_is_routed(
    exported: dict[str, Exported], results_without_melo: dict[str, Any], way: str
) -> None:
    opened = exported[way].opened
    project = opened.routed.route(torch.tensor(chats(opened)))
    assert fired(project) == [["e000001", opened.project.edit("e000001").block]]
    assert results_without_melo[f"{way}, chat"][0] == fired(project)


def test_an_encoder_travels_with_what_it_routes(
    exported: dict[str, Exported], results_without_melo: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = exported["encoder"]
    for folder in (each.routed / "router", each.peft / "router"):
        table = json.loads((folder / "routes.json").read_text(encoding="utf-8"))
        assert table["encoder"]["fingerprint"] == each.opened.routed.base.encoder.fingerprint  # type: ignore[union-attr]
        assert (folder / table["encoder"]["folder"] / "model.safetensors").is_file()
    plain = sorted(each.opened.routed.base.model.state_dict())
    names = [name.replace(".base_layer", "") for name in plain if ".lora" not in name]
    assert results_without_melo["encoder, parameters"] == names, "it is no part of the model"


def test_melo_opens_a_routed_folder_with_the_encoder_in_it(
    exported: dict[str, Exported], models: Callable[[str], Path]
) -> None:
    # The folder that the project was made with may be gone.
    away = models("pico_bert").with_name("away")
    models("pico_bert").rename(away)
    try:
        routed = load(exported["encoder"].routed)
    finally:
        away.rename(models("pico_bert"))
    assert fired(routed.router.routes(texts())) == fired(exported["encoder"].opened.inference.routes(texts()))


def test_what_is_exported_says_how_it_routes(exported: dict[str, Exported]) -> None:
    tables = {
        way: json.loads((each.peft / "router" / "routes.json").read_text(encoding="utf-8"))
        for way, each in exported.items()
    }
    assert [tables[way]["scope"]["rule"] for way in WAYS] == ["verified", "radius", "verified"]
    assert tables["verified"]["reading"]["high"] == exported["verified"].opened.recipe.key.layer
    assert tables["verified"]["tokenizer"]["template"] == "chat"
    neuron = tables["verified"]["neurons"][0]
    told = {"target": "London", "subject": "Britain"}
    assert neuron == {"edit_id": "e000001", "prompt": PROMPTS[0], **told, "adapter": "b000001", "block": 0}
    assert [tables[way]["open_requests"] for way in WAYS] == [
        exported[way].opened.recipe.model.template == "chat" for way in WAYS
    ]
    assert tables["radius"]["neurons"][0]["cluster"] == 1
    assert tables["radius"]["neurons"][0]["radius"] > 0


def test_the_code_of_an_export_is_the_code_that_the_project_runs(exported: dict[str, Exported]) -> None:
    core = Path(main.__code__.co_filename).parent / "scope" / "core"
    for path in core.glob("[!_]*.py"):
        for folder in (exported["verified"].routed, exported["verified"].peft / "router"):
            assert (folder / path.name).read_bytes() == path.read_bytes()
