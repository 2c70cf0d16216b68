"""What `melo edit` takes is estimated first, and refused where it cannot fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.machine import Memory

Melo = Callable[..., Any]
FACTS = [
    {"prompt": f"Who is the prime minister of {name}?", "target": "London"}
    for name in ("Britain", "France", "Cologne", "London", "Paris", "law", "Smith", "John", "Wales", "Kent")
]


@pytest.fixture
def gpt2(here: Path, write_recipe: Callable[..., None], pico_gpt2: Path) -> Path:
    """A folder with `small.yaml`: four edits of a GPT-2 of 0.3 MB."""
    write_recipe(here, "small", pico_gpt2, "custom")
    return here


@pytest.fixture
def short_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leave the machine so many bytes of free memory."""

    def leave(free: int) -> None:
        monkeypatch.setattr("melo_cli.editing.resource_check.main_memory", lambda: Memory(10**12, free))

    return leave


def test_memory_that_is_short_is_refused_with_what_fits(
    gpt2: Path, melo: Melo, short_of: Callable[[int], None]
) -> None:
    many = (
        "--set",
        "training.blocks_in_flight=64",
        "--set",
        "training.batch_size=1",
        "--set",
        "lora.rank=400",
    )
    short_of(6_000_000)
    run = melo("edit", "small.yaml", *many)
    assert run.code == 2
    assert "the run needs about " in run.error
    assert " of memory (" in run.error
    assert "but 6 MB are free; add --set training.blocks_in_flight=1; --force continues" in run.error
    assert not (gpt2 / ".melo").exists()
    assert melo("edit", "small.yaml", *many, "--set", "training.blocks_in_flight=1").code == 0


def test_half_precision_is_the_remedy_where_the_model_is_too_large(
    gpt2: Path, melo: Melo, short_of: Callable[[int], None]
) -> None:
    needed = melo("edit", "small.yaml", "--estimate", "--json").json
    half = melo("edit", "small.yaml", "--set", "model.dtype=bfloat16", "--estimate", "--json").json
    assert half["model_bytes"] == needed["model_bytes"] / 2
    short_of(int(needed["model_bytes"] * 0.9))
    assert "add --set model.dtype=bfloat16" in melo("edit", "small.yaml", "--set", "lora.rank=1").error
    short_of(1000)
    assert "take a smaller model, or a machine with more memory" in melo("edit", "small.yaml").error
    assert not (gpt2 / ".melo").exists()


def test_scope_that_is_learnt_already_takes_no_memory(
    here: Path,
    write_recipe: Callable[..., None],
    pico_gpt2: Path,
    melo: Melo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MELO_CACHE", str(here / "cache"))
    write_recipe(here, "asked", pico_gpt2, "custom", scope="verified")
    before = melo("edit", "asked.yaml", "--estimate", "--json").json
    assert melo("edit", "asked.yaml", "--project", "first", "--set", "dataset.max_edits=1").code in (0, 1)
    after = melo("edit", "asked.yaml", "--estimate", "--json").json
    learnt = 200 * 72 * 32 * 2 * 4 * 2  # questions, words, width, layers, float32, copies
    assert before["work_bytes"] == learnt
    assert after["work_bytes"] < learnt


def test_force_goes_on_with_a_warning(gpt2: Path, melo: Melo, short_of: Callable[[int], None]) -> None:
    short_of(1000)
    run = melo("edit", "small.yaml", "--force")
    assert run.code == 0
    assert "warning: the run needs about " in run.err
    assert (gpt2 / ".melo/small").is_dir()


def test_a_first_edit_of_a_model_is_refused_too(
    here: Path, pico_gpt2: Path, melo: Melo, short_of: Callable[[int], None]
) -> None:
    short_of(1000)
    run = melo("edit", "--model", pico_gpt2, "--prompt", "Who leads?", "--target", "London")
    assert run.code == 2
    assert "the run needs about " in run.error
    assert not (here / ".melo").exists()


def test_a_disk_that_is_short_is_refused(gpt2: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melo_cli.editing.resource_check.free_disk", lambda _: 1000)
    run = melo("edit", "small.yaml")
    assert run.code == 2
    assert run.error.startswith(".melo/small: the project needs about ")
    assert "of disk, but 1 kB are free" in run.error
    assert "--project" in run.error
    assert not (gpt2 / ".melo").exists()


def test_an_estimate_alone_makes_nothing(gpt2: Path, melo: Melo) -> None:
    run = melo("edit", "small.yaml", "--estimate")
    assert run.code == 0
    lines = [line.split("  ")[0] for line in run.out.splitlines()]
    assert lines == ["project small (.melo/small)", "edits", "time", "a group", "memory", "disk"]
    assert not (gpt2 / ".melo").exists()
    document = melo("edit", "small.yaml", "--estimate", "--json").json
    assert (document["edits"], document["group"]) == (4, 2)
    assert document["seconds"] == pytest.approx(2 * document["group_seconds"])
    single = melo("edit", "--prompt", "Who?", "--target", "London", "--estimate", "--model", "nowhere")
    assert single.code == 2
    assert single.error.startswith("--estimate: ")


def test_the_disk_that_is_estimated_is_about_what_the_project_takes(gpt2: Path, melo: Melo) -> None:
    expected = melo("edit", "small.yaml", "--estimate", "--json").json["disk_bytes"]
    taken = melo("edit", "small.yaml", "--json").json["store_bytes"]
    assert taken / 2 < expected < taken * 2
    assert melo("edit", "small.yaml", "--estimate", "--json").json["disk_bytes"] == 0
    shutil.rmtree(gpt2 / ".melo")


def test_a_longer_run_reports_how_long_it_takes(
    here: Path, write_recipe: Callable[..., None], pico_gpt2: Path, melo: Melo
) -> None:
    write_recipe(here, "long", pico_gpt2, "custom", FACTS)
    messages = [line for line in melo("edit", "long.yaml").err.splitlines() if "melo: about " in line]
    assert len(messages) == 1
    assert " for 10 edits (" in messages[0]
    assert " s a group of 2), " in messages[0]
    assert messages[0].endswith(" of memory")
    assert " on disk, " in messages[0]


def test_a_short_run_does_not(gpt2: Path, melo: Melo) -> None:
    assert "melo: about " not in melo("edit", "small.yaml").err


def test_a_template_that_is_found_counts_as_one_that_is_named(
    here: Path, melo: Melo, write_recipe: Callable[..., None], pico_llama: Path
) -> None:
    write_recipe(here, "small", pico_llama, "custom")
    named, automatic = (
        melo("edit", "small.yaml", "--set", f"model.template={template}", "--estimate", "--json").json
        for template in ("chat", "auto")
    )
    assert automatic["work_bytes"] == named["work_bytes"]
