"""What was learnt from the corpus with one base model or encoder, kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from melo_cli.machine import main_memory
from melo_cli.models.base_model import BaseModel
from melo_cli.models.hub_cache import is_hub_id
from melo_cli.models.user_cache import user_cache
from melo_cli.reporter import Reporter
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.corpus import corpus_digest, load_corpus
from melo_cli.scope.reading import reader_for
from melo_cli.scope.training import Half, Learnt, Outcome, PairExamples, Readings, learn, texts_to_read

_VERSION = 3
"""Of what is learnt and how: a cache of another version is not used."""
_PARTS = ("features", "same", "weight")
_SEED = 0
"""What is learnt from the corpus does not depend on a recipe's seed, so that recipes share it."""


@dataclass(frozen=True)
class KeptScope:
    """What some reader learnt of the same questions, as the cache has it.

    Attributes:
        encoder: hub id or folder of a sentence encoder; None for the base model itself.
        outcomes: of simulated edits, about kinds of questions that the asked model did not learn.
    """

    encoder: str | None
    outcomes: Sequence[Outcome]


def scope_learnt_with(base: BaseModel, layer: str, questions: int, reporter: Reporter) -> Learnt:
    """What the corpus teaches with this base model or its sentence encoder: from the cache, or learnt now."""
    read_by = _read_by(base, layer, base.model.dtype)
    path = _path(read_by, questions)
    found = _read(path)
    if found is not None:
        return found
    corpus = load_corpus().sample(questions, _SEED)
    texts = texts_to_read(corpus)
    with (
        _read_fast(base),
        reporter.progress("learning scope: reading the corpus", len(texts), "texts") as progress,
    ):
        reading = reader_for(base, layer).read(texts, progress.advance)
    reporter.info("learning scope: comparing questions")
    learnt = learn(corpus, Readings(reading), _SEED)
    told = {
        "version": _VERSION,
        "corpus": corpus_digest(),
        "questions": questions,
        "read by": read_by,
        "encoder": base.encoder.name if base.encoder is not None else None,
    }
    _write(path, learnt, told, reporter)
    return learnt


def learnt_by_others(base: BaseModel, layer: str, questions: int) -> list[KeptScope]:
    """What the cache has of the other readers that a project on this base model may take: the base itself,
    where a sentence encoder is in use, and every encoder that is still there."""
    in_use = _path(_read_by(base, layer, base.model.dtype), questions)
    itself = _read_by(replace(base, encoder=None), layer, base.model.dtype)
    found = []
    for path in sorted(in_use.parent.glob("*.safetensors")):
        told = _told(path) if path != in_use else None
        if told is None or (told["questions"], told["corpus"]) != (questions, corpus_digest()):
            continue
        encoder = told["encoder"]
        if encoder is None:
            takes_part = base.encoder is not None and told["read by"] | {"layer": layer} == itself
        else:
            takes_part = Path(encoder).is_dir() or is_hub_id(encoder)
        if takes_part:
            found.append(KeptScope(encoder, [Outcome(*row) for row in told["outcomes"]]))
    return found


@contextmanager
def _read_fast(base: BaseModel) -> Iterator[None]:
    """Hold a base in half precision as float32 while thousands of texts are read, if memory has the room.

    A CPU reads bfloat16 ten times slower. The weights are the same; what is learnt of states that are rounded
    less holds for the others. Afterwards every weight is what it was, bit for bit.
    """
    model, dtype = base.model, base.model.dtype
    memory = main_memory()
    wanted = sum(parameter.numel() for parameter in model.parameters()) * torch.float32.itemsize
    slow = model.device.type == "cpu" and dtype.itemsize < torch.float32.itemsize
    if base.encoder is not None or not slow or (memory is not None and memory.free < wanted):
        yield
        return
    kept = {name: tensor.dtype for name, tensor in _tensors(model)}
    model.float()
    try:
        yield
    finally:
        for name, tensor in _tensors(model):
            tensor.data = tensor.data.to(kept[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def is_learnt_with(outline: BaseModel, layer: str, questions: int, dtype: torch.dtype) -> bool:
    """Whether the cache has what the corpus teaches with a base model that is to be held as `dtype`."""
    return _path(_read_by(outline, layer, dtype), questions).is_file()


def _path(read_by: dict[str, str], questions: int) -> Path:
    told = {"version": _VERSION, "corpus": corpus_digest(), "questions": questions, "read by": read_by}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    return user_cache() / "scope" / f"{digest}.safetensors"


def _read_by(base: BaseModel, layer: str, dtype: torch.dtype) -> dict[str, str]:
    if base.encoder is not None:
        return dict(base.encoder.fingerprint)
    # Questions are read without the template, which may write another day in another project.
    parts = {name: mark for name, mark in base.reference.fingerprint.items() if name != "chat template"}
    return {"layer": layer, "dtype": str(dtype), **parts}


def _told(path: Path) -> dict[str, Any] | None:
    """What a cache says beside its arrays; None where it cannot be read or is of another version."""
    try:
        with safe_open(path, framework="pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["melo"])
            return told if told["version"] == _VERSION else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _read(path: Path) -> Learnt | None:
    """A cache that cannot be read is as good as none."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["melo"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        kinds = dict(zip(told["kinds"], arrays.pop("kinds"), strict=True))
        one, other = (_half(f"half {at}.", told["asked"][at], arrays) for at in (0, 1))
        outcomes = [Outcome(*row) for row in told["outcomes"]]
        return Learnt(ScopeModel.from_arrays(told["model"], arrays), kinds, (one, other), outcomes)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _half(prefix: str, asked: list[list[str]], arrays: dict[str, torch.Tensor]) -> Half:
    features, same, weight = (arrays.pop(f"{prefix}{part}").float() for part in _PARTS)
    query = arrays.pop(f"{prefix}query").long()
    return Half(PairExamples(features, same, weight), query, [(kind, text) for kind, text in asked])


def _write(path: Path, learnt: Learnt, told: Mapping[str, Any], reporter: Reporter) -> None:
    """Write what was learnt; `told` says of what and by whom."""
    settings, arrays = learnt.model.to_arrays()
    arrays["kinds"] = torch.stack(list(learnt.kinds.values()))
    for at, half in enumerate(learnt.halves):
        arrays |= {f"half {at}.{part}": getattr(half.examples, part).to(torch.float16) for part in _PARTS}
        arrays[f"half {at}.query"] = half.query.int()
    model = {
        "model": settings,
        "kinds": list(learnt.kinds),
        "asked": [list(half.asked) for half in learnt.halves],
        "outcomes": [[each.kind, each.text, each.logit, each.right] for each in learnt.outcomes],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            written = Path(beside) / path.name
            save_file(arrays, written, {"melo": json.dumps({**told, **model})})
            written.replace(path)
    except (OSError, SafetensorError) as error:
        reporter.warn(f"what was learnt of scope cannot be kept ({error}); the next project learns it again")
