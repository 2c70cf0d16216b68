"""Every architecture takes an edit by its default targets, routes it and exports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pico_architectures import ARCHITECTURES, OTHER, POSITIONS, PROMPT, plainly_asked, recipe_of

from melo_cli.editing import edit_dataset
from melo_cli.errors import ModelError, PromptError
from melo_cli.exporting import export_peft
from melo_cli.exporting.adapter_folder import ADAPTERS
from melo_cli.models.base_model import BaseModel, ModelKind, load_base_model
from melo_cli.models.encoding import Encoder, pad_prompts
from melo_cli.recipe import ModelSection
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.greedy import room_after, write_greedily
from melo_cli.runtime.loading import OpenProject, open_project

Built = Callable[[str], Path]


def edited(model: Path, folder: Path, targets: Any = "auto") -> OpenProject:
    """A project with one edit, opened anew; the edit took."""
    recipe = recipe_of(model, folder, targets)
    summary = edit_dataset(recipe, folder / "project", SilentReporter(), command="test")
    assert summary.failures == []
    return open_project(folder / "project")


@torch.no_grad()
def logits(base: BaseModel, model: Any, text: str) -> torch.Tensor:
    inputs = pad_prompts(base, [base.tokenizer(text).input_ids])
    start = torch.full((1, 1), getattr(base.model.config, "decoder_start_token_id", None) or 0)
    extra = {"decoder_input_ids": start} if base.kind is ModelKind.SEQ2SEQ else {}
    scores: torch.Tensor = model(**inputs, **extra).logits
    return scores


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_edit_takes_routes_and_exports(name: str, built: Built, tmp_path: Path) -> None:
    opened = edited(built(name), tmp_path)
    routed, base = opened.routed, opened.routed.base
    plain = load_base_model(opened.recipe.model, "custom")
    (edit,) = opened.project.edits()

    routed_answer = logits(base, routed, PROMPT)
    assert routed.routes[0].fired is not None
    assert torch.equal(logits(base, routed, OTHER), logits(plain, plain.model, OTHER))
    assert routed.routes[0].fired is None

    (asked,) = opened.inference.answers([opened.encoder.prompt(PROMPT)], [edit.block], [8])
    assert asked == edit.target

    export_peft(opened, tmp_path / "peft", SilentReporter())
    adapter = tmp_path / "peft" / ADAPTERS / str(edit.block)
    ours = logits(plain, PeftModel.from_pretrained(plain.model, adapter).eval(), PROMPT)
    torch.testing.assert_close(ours, routed_answer, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_mates_change_no_answer(name: str, built: Built, tmp_path: Path) -> None:
    recipe = recipe_of(built(name), tmp_path, "auto")
    base = load_base_model(recipe.model, "custom")
    prompts = [base.tokenizer(text).input_ids for text in (PROMPT, OTHER, "Where?")]
    batch = pad_prompts(base, prompts)
    start = torch.full((3, 1), getattr(base.model.config, "decoder_start_token_id", None) or 0)
    extra = {"decoder_input_ids": start} if base.kind is ModelKind.SEQ2SEQ else {}
    position = -1 if base.kind is ModelKind.CAUSAL else 0
    with torch.no_grad():
        together = base.model(**batch, **extra).logits
    for row, text in enumerate((PROMPT, OTHER, "Where?")):
        alone = plainly_asked(base, text)
        mine = together[row] if base.kind is ModelKind.CLASSIFIER else together[row, position]
        torch.testing.assert_close(mine, alone, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("class_name", "settings", "reason"),
    [
        ("MambaForCausalLM", {"state_size": 4}, "mamba carries a state from token to token"),
        (
            "NystromformerForSequenceClassification",
            {"num_attention_heads": 4},
            "nystromformer does not mask padding",
        ),
        ("FNetForSequenceClassification", {"intermediate_size": 64}, "fnet does not mask padding"),
    ],
)
def test_what_padding_would_change_is_refused(
    class_name: str, settings: dict[str, int], reason: str, tmp_path: Path, pico_tokenizer: Any
) -> None:
    import transformers

    kind = getattr(transformers, class_name)
    config = kind.config_class(
        vocab_size=len(pico_tokenizer), hidden_size=32, num_hidden_layers=2, pad_token_id=0, **settings
    )
    kind(config).save_pretrained(tmp_path / "model")
    pico_tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=f"architecture {reason}"):
        load_base_model(ModelSection(name_or_path=str(tmp_path / "model"), device="cpu"), "custom")


@pytest.mark.parametrize("name", ["marian", "pegasus"])
def test_an_encoder_decoder_writes_no_further_than_its_positions(built: Built, name: str) -> None:
    base = load_base_model(ModelSection(name_or_path=str(built(name)), device="cpu"), "custom")
    encoder = Encoder(base)
    ids = encoder.prompt(PROMPT)
    assert room_after(base, len(ids)) == base.max_length == POSITIONS
    with pytest.raises(PromptError, match=rf"the target has \d+ tokens, but the model takes {POSITIONS}"):
        encoder.edit(PROMPT, "that " * POSITIONS)
    base.model.generation_config.suppress_tokens = list(base.special.stops)  # it never comes to an end
    (written,) = write_greedily(base, [ids], room_after(base, len(ids)))
    assert len(written) == POSITIONS


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_the_longest_prompt_has_a_position_for_each_token(name: str, built: Built) -> None:
    """RoBERTa, MPNet and their kin count positions from the padding token on, and so have fewer."""
    base = load_base_model(ModelSection(name_or_path=str(built(name)), dtype="float32"), "custom")
    base.tokenizer.model_max_length = 10**9
    assert base.max_length is not None
    longest = Encoder(base, truncate=True).prompt("river " * 500)
    assert len(longest) <= base.max_length
    start = {"decoder_input_ids": torch.zeros((1, 1), dtype=torch.long)}
    more = start if base.kind is ModelKind.SEQ2SEQ else {}
    base.model(**pad_prompts(base, [longest, longest[:3]]), **{k: v.repeat(2, 1) for k, v in more.items()})
