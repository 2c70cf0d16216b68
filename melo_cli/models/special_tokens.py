"""The tokens that fill up batches and end answers, where a model's settings and its tokenizer's differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from melo_cli.errors import ModelError
from melo_cli.models.chat_template import closing_token


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens in use.

    Attributes:
        pad: fills up rows of a batch; the model has an embedding for it.
        stops: the tokens that end an answer, at which every way of asking stops.
        stop: the one of them that closes a target: the model's own `generate` stops at it.
    """

    pad: int
    stops: tuple[int, ...]
    stop: int | None


def align_special_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, generates: bool, chat: bool
) -> SpecialTokens:
    """Give the model and its tokenizer the same special tokens, in memory, and return these.

    A classifier made of a decoder finds the end of a prompt by its config's padding token, some models count
    positions from it: that token comes first. A tokenizer may name one that the model has no embedding for.

    Args:
        chat: prompts are asked in the chat template, which closes answers with a token of its own.

    Raises:
        ModelError: there is neither a padding nor an end token.
    """
    pad = _align_padding(model, tokenizer, generates=generates)
    if not generates:
        return SpecialTokens(pad, (), None)
    own = _ids(model.generation_config.eos_token_id if model.generation_config is not None else None)
    named = _ids(tokenizer.eos_token_id)
    stops = tuple(dict.fromkeys((*own, *named)))
    if stops and model.generation_config is not None:
        model.generation_config.eos_token_id = list(stops) if len(stops) > 1 else stops[0]
    closing = _closing(tokenizer, own or named) if chat else None
    candidates = (closing, *(token for token in named if token in (own or named)), *own)
    return SpecialTokens(pad, stops, next((token for token in candidates if token is not None), None))


def _align_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, generates: bool) -> int:
    known = vocabulary_size(model)
    config = model.config.get_text_config()
    named = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id)
    usable = [token for token in named if token is not None and 0 <= token < known]
    if not usable:
        raise ModelError(
            "the tokenizer has neither a pad token nor an end token that the model knows",
            where=config.name_or_path or None,
        )
    # Users pad a classifier's batch by its tokenizer. Where text is written, the mask says what is padding.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= known or not generates:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    if getattr(config, "pad_token_id", None) != usable[0]:
        config.pad_token_id = usable[0]
    return int(usable[0])


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many tokens the model has an embedding for."""
    return model.get_input_embeddings().get_parameter("weight").shape[0]


def _closing(tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> int | None:
    try:
        return closing_token(tokenizer, stops)
    except TemplateError:  # one that takes no answer yet: the model's other end tokens do
        return None


def _ids(tokens: int | list[int] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return tuple(tokens) if isinstance(tokens, list) else (tokens,)
