"""Text to tokens: prompts, targets, and the padded batches that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jinja2 import TemplateError
from torch import Tensor

from melo_cli.errors import DatasetError, PromptError
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.class_labels import class_id
from melo_cli.models.special_tokens import vocabulary_size

IGNORED = -100
_ROOM_FOR_ANSWERS = 256
"""Tokens behind a prompt that is cut, at most; of a short model a quarter of what it takes."""

Message: TypeAlias = dict[str, str]
"""One turn of a conversation: `role` (`system`, `user`, `assistant`) and `content`."""


@dataclass(frozen=True)
class EncodedEdit:
    """A prompt with the answer it is to get.

    Attributes:
        prompt_ids: tokens of the prompt alone: what a user's query of the same text has too.
        target_ids: tokens of the answer; for a generating model the stop token closes them, for a
            classifier it is the class id alone.
        alias_length: tokens of the longest other answer that counts as right.
        wanted: whether the answer is to be given; else training makes it unlikely.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    alias_length: int = 0
    wanted: bool = True

    @property
    def answer_length(self) -> int:
        """Tokens of the longest answer that counts as right."""
        return max(len(self.target_ids), self.alias_length)


class Encoder:
    """Encodes prompts and targets for one base model.

    Args:
        template: `chat` wraps every prompt as a user's turn of the tokenizer's chat template.
        truncate: cut prompts that are too long instead of refusing them (see `_truncated`).

    Raises:
        PromptError: `template` is `chat` and the tokenizer has no chat template.
    """

    def __init__(self, base: BaseModel, *, template: str = "none", truncate: bool = False) -> None:
        self.base = base
        self.tokenizer = base.tokenizer
        self.template = template
        self.truncate = truncate
        if template == "chat" and not self.tokenizer.chat_template:
            raise PromptError(
                "the tokenizer has no chat template", where="model.template", hint="use model.template=none"
            )

    def prompt(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt as the model is asked it.

        Raises:
            PromptError: the prompt is empty, or longer than the model takes.
        """
        if not text.strip():
            raise PromptError("the prompt is empty", where=repr(text))
        return self._within_limit(self._prompt_ids(text), text)

    def takes(self, text: str) -> bool:
        """Whether the model takes a prompt whole, with room behind it."""
        limit = self.base.max_length
        return limit is None or len(self._prompt_ids(text)) < limit

    def plain_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text as it stands, without the chat template; a BOS token that it begins with is the
        only one.

        Raises:
            PromptError: the text is empty, or longer than the model takes.
        """
        if not text.strip():
            raise PromptError("the prompt is empty", where=repr(text))
        begins = str(self.tokenizer.bos_token or "")
        has_bos = bool(begins) and text.startswith(begins)
        return self.known_tokens(self.tokenizer(text, add_special_tokens=not has_bos).input_ids)

    def known_tokens(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Tokens that the model takes.

        Raises:
            PromptError: the model has no embedding for one of them, or takes fewer.
        """
        known = vocabulary_size(self.base.model)
        unknown = [token for token in ids if not 0 <= token < known]
        if unknown:
            raise PromptError(f"the model has no token {unknown[0]}", hint=f"use 0 to {known - 1}")
        limit = self.base.max_length
        if limit is not None and len(ids) > limit:
            raise PromptError(f"the prompt has {len(ids)} tokens, but the model takes {limit}")
        return tuple(ids)

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Tokens of a conversation that ends with a user's turn, as the model is asked it.

        Raises:
            PromptError: prompts are asked without a chat template, the template does not take the messages,
                or they are longer than the model takes.
        """
        return self._within_limit(self._conversation_ids(messages), messages[-1]["content"])

    def length(self, messages: Sequence[Message]) -> int:
        """How many tokens a conversation has, however long it is.

        Raises:
            PromptError: there is no chat template, or it does not take the messages.
        """
        return len(self._conversation_ids(messages))

    def require_template(self) -> None:
        """Refuse other messages besides a prompt, if there is no chat template for them.

        Raises:
            PromptError: prompts are asked without a chat template.
        """
        if self.template != "chat":
            raise PromptError(
                "other messages need a chat template, but prompts are asked without one",
                where="model.template=none",
                hint="ask the prompt alone, or make the project with model.template=chat",
            )

    def _within_limit(self, ids: list[int], text: str) -> tuple[int, ...]:
        self._require_known(ids, text)
        limit = self.base.max_length
        if limit is not None and len(ids) > limit:
            if not self.truncate:
                raise PromptError(
                    f"the prompt has {len(ids)} tokens, but the model takes {limit}",
                    where=_shortened(text),
                    hint="shorten it or set dataset.long_prompts=truncate",
                )
            ids = self._truncated(text, limit)
        return tuple(ids)

    def edit(self, prompt: str, target: str, aliases: Sequence[str] = ()) -> EncodedEdit:
        """Tokens of a prompt and of its target, with room for other answers that count as right.

        Args:
            prompt: the prompt, without a chat template.
            target: the answer wanted; for a classifier the name or id of the class.
            aliases: other answers that count as right.

        Returns:
            The token ids of both.

        Raises:
            PromptError: they are too long together.
            DatasetError: the target is no class of the classifier, or the tokenizer cannot write it.
        """
        prompt_ids = self.prompt(prompt)
        target_ids = self.target(prompt, target)
        limit = self.base.max_length
        together = self.base.kind is ModelKind.CAUSAL
        length = len(target_ids) + (len(prompt_ids) if together else 0)
        if limit is not None and length > limit:
            counted = "prompt and target have" if together else "the target has"
            raise PromptError(
                f"{counted} {length} tokens, but the model takes {limit}",
                where=_shortened(prompt),
                hint="shorten the prompt" if together else "shorten the target",
            )
        lengths = [len(self.tokenizer(alias).input_ids) + 1 for alias in aliases]
        return EncodedEdit(prompt_ids, target_ids, max(lengths, default=0))

    def target(self, prompt: str, target: str) -> tuple[int, ...]:
        """Tokens of a target after its prompt, with those that the model's `generate` puts before and behind.

        Args:
            prompt: the prompt; a decoder-only model's tokens of the target depend on it.
            target: the answer wanted.

        Returns:
            Token ids; for a classifier the class id alone.

        Raises:
            DatasetError: the target is no class of the classifier, or the tokenizer cannot write it.
        """
        if self.base.kind is ModelKind.CLASSIFIER:
            return (class_id(self.base.labels, target),)
        if self.base.kind is ModelKind.SEQ2SEQ:
            ids = list(self.tokenizer(text_target=target, add_special_tokens=False).input_ids)
        else:
            ids = self._continuation(prompt, target)
        self._require_written(ids, target)
        first, stop = self._forced_first(), self.base.special.stop
        return (*first, *ids, *((stop,) if stop is not None else ()))

    def text(self, ids: Sequence[int]) -> str:
        """An answer's text, as a user sees it: no special tokens, no space around."""
        if self.base.kind is ModelKind.CLASSIFIER:
            return self.base.labels[ids[0]]
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _forced_first(self) -> tuple[int, ...]:
        """The token that an encoder-decoder's generation config makes it begin with (BART, mBART)."""
        own = self.base.model.generation_config
        if self.base.kind is not ModelKind.SEQ2SEQ or own is None or own.forced_bos_token_id is None:
            return ()
        return (own.forced_bos_token_id,)

    def _require_known(self, ids: Sequence[int], text: str) -> None:
        known = vocabulary_size(self.base.model)
        unknown = next((token for token in ids if token >= known), None)
        if unknown is not None:
            raise PromptError(
                f"its token {self.tokenizer.convert_ids_to_tokens(unknown)!r} has the id {unknown}, but the "
                f"model has {known} embeddings",
                where=_shortened(text),
                hint="remove the token, or resize the model's embeddings to its tokenizer",
            )

    def _require_written(self, ids: Sequence[int], target: str) -> None:
        """Refuse a target that no training can have the model say."""
        written = str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        if written.split() != target.split():
            raise DatasetError(
                f"the tokenizer cannot write it: it becomes {_shortened(written)}",
                where=f"target {_shortened(target)}",
                hint="use characters that the tokenizer knows",
            )
        own = self.base.model.generation_config
        never = (own.suppress_tokens or ()) if own is not None else ()
        at_first = (own.begin_suppress_tokens or ()) if own is not None else ()
        refused = next((token for token in ids if token in never), None)
        refused = ids[0] if ids[0] in at_first else refused
        if refused is not None:
            raise DatasetError(
                f"the model's generation config suppresses {self.tokenizer.decode([refused])!r}",
                where=f"target {_shortened(target)}",
                hint="give another target, or change suppress_tokens in generation_config.json",
            )

    def _conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        self.require_template()
        try:
            return self._written(messages)
        except (TemplateError, TypeError, KeyError) as error:
            raise PromptError(
                f"the chat template does not take these messages ({error})",
                where=_shortened(messages[-1]["content"]),
                hint="use the message format of the model's documentation",
            ) from error

    def _prompt_ids(self, text: str) -> list[int]:
        if self.template == "chat":
            return self._written([{"role": "user", "content": text}])
        return list(self.tokenizer(text).input_ids)

    def _written(self, messages: Sequence[Message]) -> list[int]:
        """Messages as the chat template writes them, open for an answer."""
        written = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False
        )
        return list(self.tokenizer(written, add_special_tokens=False).input_ids)

    def _truncated(self, text: str, limit: int) -> list[int]:
        """A prompt that fits: a document that is classified by its beginning, any other by its end.

        A question stands at the end of a long prompt. A decoder needs room for the answer behind it.
        """
        if self.base.kind is ModelKind.CLASSIFIER:
            return list(self.tokenizer(text, truncation=True, max_length=limit).input_ids)
        if self.base.kind is ModelKind.CAUSAL:
            limit -= min(_ROOM_FOR_ANSWERS, limit // 4)
        words = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        ids = self._prompt_ids(text)
        while len(ids) > limit:
            words = words[len(ids) - limit :]
            if not words:
                raise PromptError(
                    f"the chat template leaves no room for the prompt within {limit} tokens",
                    where=_shortened(text),
                    hint="use model.template=none",
                )
            ids = self._prompt_ids(str(self.tokenizer.decode(words)).strip())
        return ids

    def _continuation(self, prompt: str, target: str) -> list[int]:
        """The target's tokens as they follow the prompt's own, which stay as they are without it."""
        if self.template == "chat" or prompt[-1].isspace() or target[0].isspace():
            glued = target
        else:
            glued = f" {target}"
        before = self._prompt_ids(prompt)
        if self.template == "none":
            together = list(self.tokenizer(prompt + glued).input_ids)
            if together[: len(before)] == before:
                return [token for token in together[len(before) :] if token != self.base.special.stop]
        return list(self.tokenizer(glued, add_special_tokens=False).input_ids)


def pad_prompts(
    base: BaseModel, prompts: Sequence[Sequence[int]], side: str | None = None
) -> dict[str, Tensor]:
    """A batch of prompts for the model's forward or `generate`.

    Args:
        base: the base model.
        prompts: token ids of each prompt.
        side: `left` or `right`; by default left for decoder-only models, since an answer follows the last
            token, and right for others.

    Returns:
        `input_ids` and `attention_mask`, both `[batch, length]` int64 on the model's device, and
        `position_ids` where the model takes them.
    """
    side = side or ("left" if base.kind is ModelKind.CAUSAL else "right")
    ids = padded_rows(prompts, base.special.pad, side).to(base.model.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=ids.device)
    # Counted from the side that is not filled up.
    positions = torch.arange(ids.shape[1], device=ids.device)
    positions = positions.flip(0) if side == "left" else positions
    mask = (positions < lengths.unsqueeze(1)).long()
    return with_positions(base, {"input_ids": ids, "attention_mask": mask})


def padded_rows(rows: Sequence[Sequence[int]], filler: int, side: str) -> Tensor:
    """Rows of tokens as one tensor, filled up to the longest one.

    Args:
        rows: token ids, at least one row.
        filler: the token that fills up.
        side: `left` or `right`, where the filler goes.

    Returns:
        `[n, length]` int64.
    """
    length = max(len(row) for row in rows)
    filled = ([filler] * (length - len(row)) for row in rows)
    if side == "left":
        whole = [[*filling, *row] for filling, row in zip(filled, rows, strict=True)]
    else:
        whole = [[*row, *filling] for filling, row in zip(filled, rows, strict=True)]
    return torch.tensor(whole, dtype=torch.long)


def with_positions(base: BaseModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add `position_ids` that count real tokens only, so that padding on the left moves nothing."""
    filled = dict(inputs)
    if base.takes_positions and "position_ids" not in filled:
        filled["position_ids"] = (filled["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return filled


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
