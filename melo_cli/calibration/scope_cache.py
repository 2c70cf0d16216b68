"""Caches the scope model that was learned from the corpus with a base model or sentence encoder."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from melo_cli.machine import main_memory
from melo_cli.models.base_model import BaseModel
from melo_cli.models.hub_cache import is_hub_id
from melo_cli.models.user_cache import user_cache
from melo_cli.reporter import Reporter
from melo_cli.scope.core.model import ScopeModel
from melo_cli.scope.core.reader import TextReader
from melo_cli.scope.corpus import corpus_digest, load_corpus
from melo_cli.scope.encoder_tunings import tuning_of
from melo_cli.scope.reading import held_as, reader_for
from melo_cli.scope.simulation import Half, Outcome, PairExamples, Readings
from melo_cli.scope.training import Learnt, learn, texts_to_read

_VERSION = 7
"""Version of the cached data; a cache of another version is not used."""
_PARTS = ("features", "same", "weight")
_SEED = 0
"""Learning from the corpus does not depend on a recipe's seed, so that recipes share the cache."""


@dataclass(frozen=True)
class KeptScope:
    """The cached outcomes of another reader on the same questions.

    Attributes:
        encoder: hub id or folder of a sentence encoder; None for the base model itself.
        outcomes: of simulated edits, about kinds of questions that the measured model did not learn.
    """

    encoder: str | None
    outcomes: Sequence[Outcome]


def scope_learnt_with(
    base: BaseModel, layer: str, questions: int, reporter: Reporter, reader: TextReader | None = None
) -> Learnt:
    """The scope model learned from the corpus with this base model or its sentence encoder; cached.

    Args:
        base: the base model.
        layer: name of the key layer.
        questions: approximate number of questions of the corpus.
        reporter: shows progress.
        reader: reads for them; None reads in this process.
    """
    read_by = _read_by(base, layer, base.model.dtype)
    path = _path(read_by, questions)
    cached = _read(path)
    if cached is not None:
        return cached
    corpus = load_corpus().sample(questions, _SEED)
    texts = texts_to_read(corpus)
    with (
        held_as(base, _fast_dtype(base)),
        reporter.progress("learning scope: reading the corpus", len(texts), "texts") as progress,
    ):
        tuning = tuning_of(base)
        reading = (reader or reader_for(base, layer)).tuned(tuning).read(texts, progress.advance)
    reporter.info("learning scope: comparing questions")
    learnt = learn(corpus, Readings(reading), _SEED, tuning)
    metadata = {
        "version": _VERSION,
        "corpus": corpus_digest(),
        "questions": questions,
        "read by": read_by,
        "encoder": base.encoder.name if base.encoder is not None else None,
    }
    _write(path, learnt, metadata, reporter)
    return learnt


def learnt_by_others(base: BaseModel, layer: str, questions: int) -> list[KeptScope]:
    """The cached outcomes of other readers for this base model: the base itself, and sentence encoders."""
    in_use = _path(_read_by(base, layer, base.model.dtype), questions)
    itself = _read_by(replace(base, encoder=None), layer, base.model.dtype)
    cached = []
    for path in sorted(in_use.parent.glob("*.safetensors")):
        metadata = _read_metadata(path) if path != in_use else None
        if metadata is None or (metadata["questions"], metadata["corpus"]) != (questions, corpus_digest()):
            continue
        encoder = metadata["encoder"]
        if encoder is None:
            comparable = base.encoder is not None and metadata["read by"] | {"layer": layer} == itself
        else:
            comparable = Path(encoder).is_dir() or is_hub_id(encoder)
        if comparable:
            cached.append(KeptScope(encoder, [Outcome(*row) for row in metadata["outcomes"]]))
    return cached


def _fast_dtype(base: BaseModel) -> torch.dtype:
    """The dtype in which the corpus is read: float32 for a base in half precision, if there is enough memory.

    A CPU is ten times slower with bfloat16. States of float32 are rounded less, and what is learned from them
    holds for the others too.
    """
    model, dtype = base.model, base.model.dtype
    memory = main_memory()
    wanted = sum(parameter.numel() for parameter in model.parameters()) * torch.float32.itemsize
    slow = model.device.type == "cpu" and dtype.itemsize < torch.float32.itemsize
    if base.encoder is not None or not slow or (memory is not None and memory.free < wanted):
        return dtype
    return torch.float32


def is_learnt_with(outline: BaseModel, layer: str, questions: int, dtype: torch.dtype) -> bool:
    """Whether the cache has the scope model of a base model that is loaded as `dtype`."""
    return _path(_read_by(outline, layer, dtype), questions).is_file()


def _path(read_by: dict[str, str], questions: int) -> Path:
    metadata = {"version": _VERSION, "corpus": corpus_digest(), "questions": questions, "read by": read_by}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:32]
    return user_cache() / "scope" / f"{digest}.safetensors"


def _read_by(base: BaseModel, layer: str, dtype: torch.dtype) -> dict[str, str]:
    if base.encoder is not None:
        return {**base.encoder.fingerprint, "tuning": tuning_of(base).digest()}
    # Questions are read without the chat template, which may contain another day in another project.
    parts = {name: mark for name, mark in base.reference.fingerprint.items() if name != "chat template"}
    return {"layer": layer, "dtype": str(dtype), **parts}


def _read_metadata(path: Path) -> dict[str, Any] | None:
    """The metadata of a cache file; None if it cannot be read or has another version."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads(file.metadata()["melo"])
            return metadata if metadata["version"] == _VERSION else None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _read(path: Path) -> Learnt | None:
    """The content of a cache file; None if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["melo"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        kinds = dict(zip(metadata["kinds"], arrays.pop("kinds"), strict=True))
        one, other = (_half(f"half {at}.", metadata["asked"][at], arrays) for at in (0, 1))
        outcomes = [Outcome(*row) for row in metadata["outcomes"]]
        return Learnt(ScopeModel.from_arrays(metadata["model"], arrays), kinds, (one, other), outcomes)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def _half(prefix: str, asked: list[list[str]], arrays: dict[str, torch.Tensor]) -> Half:
    features, same, weight = (arrays.pop(f"{prefix}{part}").float() for part in _PARTS)
    query = arrays.pop(f"{prefix}query").long()
    return Half(PairExamples(features, same, weight), query, [(kind, text) for kind, text in asked])


def _write(path: Path, learnt: Learnt, metadata: Mapping[str, Any], reporter: Reporter) -> None:
    """Write a cache file."""
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
            save_file(arrays, written, {"melo": json.dumps({**metadata, **model})})
            written.replace(path)
    except (OSError, SafetensorError) as error:
        reporter.warn(f"the scope model cannot be cached ({error}); the next project learns it again")
