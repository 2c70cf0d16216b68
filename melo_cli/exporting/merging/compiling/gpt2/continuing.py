"""What the base goes on to write after text that is to stay: neurons are to be quiet there, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import GenerationConfig

from melo_cli.base_model import BaseModel
from melo_cli.encoding import pad_prompts
from melo_cli.exporting.merging.closed_form import batches
from melo_cli.exporting.merging.lessons import Lesson
from melo_cli.reporter import Reporter

_TOKENS = 64
# Texts at most.
_MOST = 1000


@torch.no_grad()
def continued(base: BaseModel, lessons: Sequence[Lesson], reporter: Reporter) -> list[Lesson]:
    """The lessons, with the base's own greedy answers behind their prompts; of many some, evenly spread.

    Args:
        base: with a plain copy of its model.
    """
    chosen = lessons[:: -(-len(lessons) // _MOST)] if lessons else []
    found: list[Lesson] = []
    with reporter.progress("reading on", len(chosen), "prompts") as progress:
        for rows in batches(chosen):
            found += _longer(base, rows)
            progress.advance(len(rows))
    return found


def _longer(base: BaseModel, lessons: Sequence[Lesson]) -> list[Lesson]:
    prompts = [lesson.encoded.prompt_ids for lesson in lessons]
    room = _TOKENS if base.max_length is None else base.max_length - max(map(len, prompts))
    if room < 1:
        return list(lessons)
    own = base.model.generation_config
    greedy = GenerationConfig(
        max_new_tokens=min(_TOKENS, room),
        do_sample=False,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=own.eos_token_id,
    )
    inputs = pad_prompts(base, prompts)
    written = base.generate(**inputs, generation_config=greedy)[:, inputs["input_ids"].shape[1] :].tolist()
    stops = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    longer = []
    for lesson, ids in zip(lessons, written, strict=True):
        end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
        whole = (*lesson.encoded.prompt_ids, *ids[:end])
        longer.append(replace(lesson, encoded=replace(lesson.encoded, prompt_ids=whole)))
    return longer
