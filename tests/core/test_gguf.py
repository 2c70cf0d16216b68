"""A GGUF file as a base model: named by one path, converted once, identified by its fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pico_gguf import write_pico_gguf

from melo_cli.errors import BaseMismatchError, ModelError
from melo_cli.models.base_model import load_base_model
from melo_cli.models.gguf import checkpoint_of
from melo_cli.recipe import ModelSection
from melo_cli.runtime.base_reference import base_reference

pytest.importorskip("gguf")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_gguf(tmp_path_factory.mktemp("gguf") / "pico.Q8_0.gguf", "Q8_0")


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
