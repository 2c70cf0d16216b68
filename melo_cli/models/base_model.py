"""Loads the base model and its tokenizer, and says what kind of model it is."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from melo_cli.errors import ModelError, TrustError
from melo_cli.models.chat_template import on_day, writes_the_day
from melo_cli.models.fingerprint import ModelReference, fingerprint, text_hash, tokenizer_hash
from melo_cli.models.gguf import checkpoint_of
from melo_cli.models.hub_cache import is_hub_id
from melo_cli.models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from melo_cli.models.special_tokens import SpecialTokens, align_special_tokens
from melo_cli.models.weight_conversion import convert_weights
from melo_cli.recipe import ModelSection

# One quarter of a million positions is more than any model has; tokenizers write "no limit" as 1e30.
_NO_LIMIT = 2**18


class ModelKind(Enum):
    """What a model does with a prompt; the value is PEFT's name for it."""

    CAUSAL = "CAUSAL_LM"
    SEQ2SEQ = "SEQ_2_SEQ_LM"
    CLASSIFIER = "SEQ_CLS"

    @property
    def generates(self) -> bool:
        """Whether its answer is text written token by token."""
        return self is not ModelKind.CLASSIFIER

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads it."""
        return str(_AUTO_CLASS[self].__name__)

    @property
    def described(self) -> str:
        """The kind in words, for messages."""
        return {
            ModelKind.CAUSAL: "decoder-only language model",
            ModelKind.SEQ2SEQ: "encoder-decoder language model",
            ModelKind.CLASSIFIER: "sequence classifier",
        }[self]


_AUTO_CLASS = {
    ModelKind.CAUSAL: transformers.AutoModelForCausalLM,
    ModelKind.SEQ2SEQ: transformers.AutoModelForSeq2SeqLM,
    ModelKind.CLASSIFIER: transformers.AutoModelForSequenceClassification,
}

_KINDS_OF_TASK = {
    "scotus": (ModelKind.CLASSIFIER,),
    "zsre": (ModelKind.SEQ2SEQ, ModelKind.CAUSAL),
    "hallucination": (ModelKind.CAUSAL,),
    "counterfact": (ModelKind.CAUSAL, ModelKind.SEQ2SEQ),
    "custom": tuple(ModelKind),
}


@dataclass(frozen=True)
class BaseModel:
    """A base model ready to answer: weights frozen, dropout off, on its device.

    Attributes:
        max_length: tokens that a prompt and its answer may have together, of an encoder-decoder each of them;
            None where there is no limit.
        encoder: the sentence encoder whose states routes are made of, where there is one.
        takes_positions: whether a padded batch needs `position_ids` to be right: only one that is padded on
            the left may, and not where positions are relative or counted from the tokens themselves.
        special: the padding token and those that end answers.
        gguf: the GGUF file that it was read from; `folder` is the checkpoint made of it.
        template: `chat` where prompts are asked in the chat template, else `none`.
        template_day: the day that the chat template writes, as `YYYY-MM-DD`; None where it writes none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: ModelKind
    reference: ModelReference
    folder: Path
    max_length: int | None
    takes_positions: bool
    special: SpecialTokens
    encoder: SentenceEncoder | None = None
    gguf: Path | None = None
    template: str = "none"
    template_day: str | None = None

    def generate(self, **arguments: Any) -> Tensor:
        """transformers' generation, `[rows, length]` int64, under whatever blocks are in force."""
        written: Tensor = self.model.generate(**arguments)  # type: ignore[operator]
        return written

    @property
    def location(self) -> str:
        """The path that opens the same base again: its folder, or its GGUF file."""
        return str(self.gguf or self.folder)

    @property
    def has_weights(self) -> bool:
        """Whether it can answer: an outline has modules without weights."""
        return self.model.device.type != "meta"

    @property
    def labels(self) -> dict[int, str]:
        """A classifier's class names by class id."""
        return {int(index): str(name) for index, name in (self.model.config.id2label or {}).items()}


# Landmarks and Fourier transforms are made of all positions of a row, masked or not.
_MIXES_PADDING = frozenset(("nystromformer", "fnet"))


def load_base_model(
    section: ModelSection, task: str, *, weights: bool = True, encoder: str | None = None
) -> BaseModel:
    """Load what a recipe's `model` section names, in evaluation mode and frozen.

    Args:
        weights: False leaves them on disk: the model's modules are on torch's meta device, to be looked at
            and not to be run, and `folder` holds the files.
        encoder: hub id or folder of a sentence encoder to load beside it.

    Raises:
        TrustError: the model needs `allow_pickle` or `trust_remote_code`, and the recipe does not set it.
        ModelError: no such model, a kind that does not fit `task`, no such device.
    """
    _without_transformers_warnings()
    named, folder = section, _resolve_folder(section)
    if named.gguf_file is not None:
        section = named.model_copy(
            update={"name_or_path": str(checkpoint_of(folder, named.gguf_file)), "gguf_file": None}
        )
    config = _load(AutoConfig, section, "config")
    kind = model_kind(config)
    _require_kind(kind, task, section.name_or_path)
    _require_attention(config, kind, section)
    model = _with_weights(section, config, kind) if weights else _outline(section, config, kind)
    model.eval().requires_grad_(False)
    tokenizer = _load_tokenizer(section)
    chat = _asks_in_template(section, kind, tokenizer)
    template_day = _fix_day(tokenizer, section.template_day) if chat else None
    read = _tokenizer_fingerprint(tokenizer, chat=chat)
    special = align_special_tokens(model, tokenizer, generates=kind.generates, chat=chat)
    beside = load_sentence_encoder(encoder) if encoder is not None else None
    reference = ModelReference(
        name_or_path=str(folder) if Path(named.name_or_path).is_dir() else named.name_or_path,
        revision=named.revision,
        fingerprint=fingerprint(folder, named.gguf_file) | read,
    )
    return BaseModel(
        model,
        tokenizer,
        kind,
        reference,
        folder if named is section else Path(section.name_or_path),
        max_length=_max_length(model, tokenizer),
        takes_positions=_takes_positions(model, kind),
        special=special,
        encoder=beside,
        gguf=folder / named.gguf_file if named.gguf_file is not None else None,
        template="chat" if chat else "none",
        template_day=template_day,
    )


def model_kind(config: Any) -> ModelKind:
    """Read a model's kind off its config.

    Raises:
        ModelError: it is a masked language model, which neither writes nor classifies.
    """
    architectures = config.architectures or []
    if any(name.endswith("ForMaskedLM") for name in architectures):
        raise ModelError(
            "the model is a masked language model, which generates no answers",
            where=config.name_or_path or None,
            hint="use a checkpoint with a classification head, or one that generates text",
        )
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return ModelKind.CLASSIFIER
    return ModelKind.SEQ2SEQ if config.is_encoder_decoder else ModelKind.CAUSAL


def tasks_of(kind: ModelKind) -> list[str]:
    """The tasks that a kind of model fits."""
    return [task for task, kinds in _KINDS_OF_TASK.items() if kind in kinds]


def resolve_device(name: str) -> torch.device:
    """The device a recipe asks for; `auto` is the first GPU, else Apple's, else the CPU.

    Raises:
        ModelError: the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ModelError(
            f"this machine has no {name}", where="model.device", hint="use model.device=auto or cpu"
        )
    return device


def _with_weights(section: ModelSection, config: Any, kind: ModelKind) -> PreTrainedModel:
    device = resolve_device(section.device)
    dtype = held_dtype(section, config.dtype, device) or "auto"
    widened = device.type == "cpu" and dtype is torch.float32
    model, loading = _load(
        _AUTO_CLASS[kind],
        section,
        "weights",
        dtype="auto" if widened else dtype,
        use_safetensors=None if section.allow_pickle else True,
        output_loading_info=True,
    )
    _require_all_weights(loading["missing_keys"], section.name_or_path)
    if widened:
        convert_weights(model, torch.float32)
        model.config.dtype = model.dtype
    placed: PreTrainedModel = model.to(device)
    return placed


def _outline(section: ModelSection, config: Any, kind: ModelKind) -> PreTrainedModel:
    """The modules alone; weights that only the hub has are fetched into its cache, and not read."""
    if not Path(section.name_or_path).expanduser().is_dir():
        fetch_weights(section)
    with torch.device("meta"):
        model: PreTrainedModel = _AUTO_CLASS[kind].from_config(
            config, trust_remote_code=section.trust_remote_code
        )
    model.tie_weights()
    return model


def fetch_weights(section: ModelSection) -> None:
    """Have the safetensors of a hub model in the cache, all shards of them.

    Raises:
        ModelError: the hub does not answer.
    """

    def fetch(name: str) -> str | None:
        options = {"_raise_exceptions_for_missing_entries": False}
        path: str | None = cached_file(section.name_or_path, name, revision=section.revision, **options)
        return path

    try:
        index = None if fetch("model.safetensors") else fetch("model.safetensors.index.json")
        if index is not None:
            for shard in set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()):
                fetch(shard)
    except OSError as error:
        raise _unreachable(section, error) from error


def held_dtype(section: ModelSection, stored: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """As what weights lie in memory, where it is not as the checkpoint has them (None).

    Args:
        stored: as the checkpoint has them, where it says so.
    """
    if section.dtype != "auto":
        named: torch.dtype = getattr(torch, section.dtype)
        return named
    # CPUs have no half-precision arithmetic worth the name: bfloat16 is read ten times slower.
    half = stored in (torch.float16, torch.bfloat16)
    return torch.float32 if device.type == "cpu" and half else None


def dtype_in_memory(base: BaseModel, section: ModelSection) -> torch.dtype:
    """The dtype in which the weights lie in memory; of weights left on disk, that of loading them here."""
    if base.has_weights:
        return base.model.dtype
    device = resolve_device("auto") if section.device == "auto" else torch.device(section.device)
    return held_dtype(section, base.model.dtype, device) or base.model.dtype


def _without_transformers_warnings() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _resolve_folder(section: ModelSection) -> Path:
    path = Path(section.name_or_path).expanduser()
    if path.is_dir():
        if section.gguf_file is not None and not (path / section.gguf_file).is_file():
            raise ModelError("there is no such file", where=section.described, hint="check model.gguf_file")
        return path.resolve()
    if not is_hub_id(section.name_or_path):
        raise ModelError(
            "there is no such folder", where=section.name_or_path, hint="check model.name_or_path"
        )
    try:
        file = section.gguf_file or "config.json"
        config = cached_file(section.name_or_path, file, revision=section.revision)
    except OSError as error:
        raise _unreachable(section, error) from error
    return Path(str(config)).parent


def _load(auto_class: Any, section: ModelSection, part: str, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(
            section.name_or_path,
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if "trust_remote_code" in str(error):
            raise TrustError(
                f"the {part} of the model cannot be loaded, because it has its own code",
                where=section.name_or_path,
                setting="trust_remote_code",
                hint="add {switch} if you trust this code",
            ) from error
        if "safetensors" in str(error) and not section.allow_pickle:
            raise TrustError(
                "the model has no safetensors weights",
                where=section.name_or_path,
                setting="allow_pickle",
                hint="convert the weights, or add {switch} if you trust the source of the pickled weights",
            ) from error
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the {part} of the model cannot be loaded ({reason})", where=section.name_or_path
        ) from error


def _unreachable(section: ModelSection, error: OSError) -> ModelError:
    return ModelError(
        f"neither a folder nor a model on the hub ({str(error).strip().partition(chr(10))[0]})",
        where=section.name_or_path,
        hint="check model.name_or_path, model.revision and the network",
    )


def _load_tokenizer(section: ModelSection) -> PreTrainedTokenizerBase:
    named = section.model_copy(update={"name_or_path": section.tokenizer, "revision": None})
    tokenizer = _load(AutoTokenizer, named if section.tokenizer else section, "tokenizer")
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if len(words) < 2:  # transformers makes up an empty one where there is none
        raise ModelError(
            "the model has no tokenizer",
            where=section.name_or_path,
            hint="name a tokenizer with model.tokenizer",
        )
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def _asks_in_template(section: ModelSection, kind: ModelKind, tokenizer: PreTrainedTokenizerBase) -> bool:
    has_one = kind.generates and bool(tokenizer.chat_template)
    return section.template == "chat" or (section.template == "auto" and has_one)


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> dict[str, str]:
    """Fingerprints of the tokenizer and the chat template, by what they do, however they are stored."""
    parts = {"tokenizer": tokenizer_hash(tokenizer)}
    if chat and tokenizer.chat_template:
        parts["chat template"] = text_hash(tokenizer.chat_template)
    return parts


def _fix_day(tokenizer: PreTrainedTokenizerBase, given_day: str | None) -> str | None:
    """Have a chat template that writes the day of its use write one day for ever; None where it has none."""
    if not writes_the_day(tokenizer.chat_template):
        return None
    day = date.fromisoformat(given_day) if given_day else datetime.now(UTC).date()
    tokenizer.chat_template = on_day(tokenizer.chat_template, day)
    return day.isoformat()


def _require_kind(kind: ModelKind, task: str, name: str) -> None:
    if kind not in _KINDS_OF_TASK[task]:
        wanted = " or ".join(fitting.described for fitting in _KINDS_OF_TASK[task])
        raise ModelError(
            f"the model is a {kind.described}, but task {task} needs a {wanted}",
            where=name,
            hint="use another model or another task",
        )


def _require_attention(config: Any, kind: ModelKind, section: ModelSection) -> None:
    """Refuse models in which padding, and so the other prompts of a batch, would change an answer."""
    if config.model_type in _MIXES_PADDING:
        raise ModelError(
            f"architecture {config.model_type} does not mask padding, so that an answer would depend "
            "on the other prompts of its batch",
            where=section.described,
            hint="use a model with ordinary attention",
        )
    known = vars(_AUTO_CLASS[kind])["_model_mapping"].get(type(config), None)
    if getattr(known, "_is_stateful", False):
        raise ModelError(
            f"architecture {config.model_type} carries a state from token to token, but melo can edit "
            "only models of "
            "attention alone",
            where=section.described,
            hint="use a model without recurrent or state-space layers",
        )


def _require_all_weights(missing: Collection[str], name: str) -> None:
    # transformers would fill them in at random and go on: a classifier without a trained head, say.
    if missing:
        raise ModelError(
            f"the checkpoint has no weights for {', '.join(sorted(missing)[:3])}, so the model would answer "
            "at random",
            where=name,
            hint="use a checkpoint trained for the task",
        )


def _takes_positions(model: PreTrainedModel, kind: ModelKind) -> bool:
    counts_itself = any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules())
    accepts = "position_ids" in inspect.signature(model.forward).parameters
    return kind is ModelKind.CAUSAL and accepts and not counts_itself


def _max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    limits = [
        getattr(model.config, "max_position_embeddings", None),
        getattr(model.config, "n_positions", None),
        tokenizer.model_max_length,
        *_positions_after_padding(model),
    ]
    # T5's positions are relative: its tokenizer's limit is the length it was trained at.
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known, default=None)


def _positions_after_padding(model: PreTrainedModel) -> list[int]:
    """How many tokens have a position where they are counted from the padding token on (RoBERTa, MPNet)."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    return [table.num_embeddings - table.padding_idx - 1 for table in tables if table.padding_idx is not None]
