"""The schema of a recipe: sections, fields, defaults, and the checks that need no model.

Every model is frozen, refuses unknown keys and converts no types: text stays text, and a whole number stays a
whole number. Errors are raised as pydantic errors; `melo_cli.recipe.messages` turns them into one line each.
The docstrings are also the text of the reference page for recipes (`docs/tools/reference.py`).
"""

from __future__ import annotations

import json
import math
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

Task = Literal["scotus", "zsre", "hallucination", "counterfact", "custom"]
DatasetFormat = Literal[
    "auto",
    "melo",
    "scotus",
    "mend-zsre",
    "zsre",
    "nq",
    "knowedit",
    "knowedit-wikibio",
    "requested-rewrite",
    "wikibigedit",
    "wikibio-hallucination",
    "question-answer",
    "prompt-completion",
    "instruction-output",
    "messages",
    "openwebtext",
]
Pooling = Literal["auto", "last", "first", "mean", "learned"]

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_FILE_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _file_safe(name: str) -> str:
    if not _FILE_SAFE.fullmatch(name):
        raise ValueError(
            "must consist of letters, digits, '.', '_' and '-', and start with a letter or digit"
        )
    return name


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ValueError("must be a day, as YYYY-MM-DD") from error


def _known_device(device: str) -> str:
    if not _DEVICE.fullmatch(device):
        raise ValueError("must be auto, cpu, mps, cuda or cuda:N")
    return device


def _target_modules(value: object) -> object:
    """Check all three forms at once: pydantic would report one error for each branch of a union."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from error
        return value if value.strip() else _wrong("must not be empty")
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return _wrong("must be auto, a list of module names or a regular expression")
    if not value or not all(name.strip() for name in value):
        return _wrong("must name at least one module, and no name may be empty")
    if len(set(value)) < len(value):
        return _wrong("names a module twice")
    return tuple(value)


def _wrong(message: str) -> object:
    raise ValueError(message)


def _argument(value: object) -> object:
    """Check a keyword argument of an optimizer or scheduler: YAML and JSON must both hold it without loss."""
    if isinstance(value, list):
        return [_argument(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return _wrong("must be a finite number")
    if value is None or isinstance(value, bool | int | float | str):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is a ValueError
        return value
    return _wrong("must be a number, text, true, false, null or a list of these")


Argument = Annotated[Any, AfterValidator(_argument)]
TargetModules = Annotated[str | tuple[str, ...], BeforeValidator(_target_modules)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class _NamedCall(BaseModel):
    """The name of a class and the keyword arguments of its constructor, in the order of the recipe."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, Argument] = Field(init=False)

    name: Text

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, without `name`."""
        return dict(self.__pydantic_extra__)


class OptimizerSection(_NamedCall):
    """A class of `torch.optim` by name, with its keyword arguments (`lr` among them).

    Attributes:
        name: name of the class.
    """

    name: Text = "Adam"

    @model_validator(mode="after")
    def _rate_is_a_number(self) -> OptimizerSection:
        rate = self.__pydantic_extra__.get("lr", 1.0)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
            raise ValueError(f"lr must be a number above 0, found {rate!r}")
        return self


class SchedulerSection(_NamedCall):
    """A class of `torch.optim.lr_scheduler` by name, with its keyword arguments.

    Attributes:
        name: name of the class.
    """


class ModelSection(_Section):
    """The base model.

    Attributes:
        name_or_path: hub id or folder.
        tokenizer: hub id or folder of the tokenizer; None is that of the model.
        revision: branch, tag or commit on the hub; None is the default branch.
        dtype: dtype of the weights in memory. "auto" is float32 on a CPU, for a checkpoint in half precision
            and for a GGUF file, and the dtype of the checkpoint otherwise.
        device: "auto" is the first accelerator, or the CPU if there is none; `--ray local` uses all GPUs.
        trust_remote_code: run Python code that comes with the model.
        allow_pickle: load pickled PyTorch weights if the model has no safetensors.
        template: "chat" wraps every prompt in the tokenizer's chat template; "auto" does so if the tokenizer
            has one; "none" asks with the prompt alone.
        template_day: `YYYY-MM-DD`, for a chat template that contains the current day; None is the day on
            which the project is made.
        gguf_file: GGUF file of the repository or folder to read the model from; its weights are dequantized.
            A `name_or_path` that ends in `.gguf` names folder and file at once.
    """

    name_or_path: Text
    tokenizer: Text | None = None
    revision: Text | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    trust_remote_code: bool = False
    allow_pickle: bool = False
    template: Literal["auto", "none", "chat"] = "auto"
    template_day: Annotated[str, AfterValidator(_day)] | None = None
    gguf_file: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_gguf_path_names_both(cls, value: object) -> object:
        if not isinstance(value, dict) or value.get("gguf_file") is not None:
            return value
        folder, slash, file = str(value.get("name_or_path", "")).replace("\\", "/").rpartition("/")
        if not file.lower().endswith(".gguf"):
            return value
        return {**value, "name_or_path": folder or slash or ".", "gguf_file": file}

    @property
    def described(self) -> str:
        """Folder or hub id, followed by the GGUF file if one is named."""
        return f"{self.name_or_path}/{self.gguf_file}" if self.gguf_file else self.name_or_path

    def at(self, name_or_path: str, **changes: Any) -> ModelSection:
        """The same model at another path or hub id.

        Args:
            name_or_path: the new folder or hub id; a path that ends in `.gguf` names the file too.
            changes: other fields to replace.
        """
        file = None if name_or_path.lower().endswith(".gguf") else self.gguf_file
        moved = {"name_or_path": name_or_path, "gguf_file": file}
        return ModelSection.model_validate({**self.model_dump(), **moved, **changes})


class DatasetSection(_Section):
    """The edits, and what they are measured against.

    Attributes:
        edits: path of a JSONL, JSON, CSV or Parquet file, or a hub id (`owner/name`, `owner/name@revision`).
        format: row format of `edits`; "auto" detects it from the fields of the rows.
        split: split of a hub data set; None picks the one for edits (see `melo_cli.datasets.hub`).
        concepts: text file with one name per line, for `wikibio-hallucination`.
        locality: file or hub id of unrelated prompts, for the whole data set.
        calibration: file or hub id of prompts with rephrases to calibrate on, in place of a share of `edits`.
        hard: file or hub id of hard prompts, for evaluation: they read like the edits and are about other
            subjects.
        accurate: file or hub id of text that the base model has right, for ARR.
        max_edits: largest number of edits to read, from the start; None reads all.
        max_locality: largest number of rows of `locality` to read, from the start; None reads all.
        long_prompts: what happens to a prompt that is longer than the model's context: "error" refuses it,
            "truncate" cuts it.
    """

    edits: Text
    format: DatasetFormat = "auto"
    split: Text | None = None
    concepts: Text | None = None
    locality: Text | None = None
    calibration: Text | None = None
    hard: Text | None = None
    accurate: Text | None = None
    max_edits: Count | None = None
    max_locality: Count | None = None
    long_prompts: Literal["error", "truncate"] = "error"

    @model_validator(mode="after")
    def _concepts_have_a_use(self) -> DatasetSection:
        if self.concepts is not None and self.format not in ("auto", "wikibio-hallucination"):
            raise ValueError(f"concepts needs format wikibio-hallucination, but format is {self.format}")
        return self


class LoraSection(_Section):
    """Where blocks sit and how large they are; `scale = alpha / rank` as in PEFT.

    Attributes:
        target_modules: modules that blocks add to: a list of names, or a regular expression. "auto" takes the
            defaults of the architecture, which `melo inspect` lists.
        rank: rank of a block.
        alpha: numerator of the scale: a block adds `alpha / rank * B @ A`.
        frozen_a: leave `A` as the seed draws it and train `B` alone (LoRA-FA, arXiv 2308.03303). Then all
            blocks have the same `A`, and none stores it.
        store_dtype: precision that blocks are stored in; `int8` has a step for each rank component of each
            matrix. They are trained in float32, and every edit is checked with the block as it is stored.
    """

    target_modules: TargetModules = "auto"
    rank: Count = 2
    alpha: Positive = 40.0
    frozen_a: bool = False
    store_dtype: Literal["int8", "float16", "float32"] = "int8"

    @property
    def scale(self) -> float:
        """The factor of `B @ A`."""
        return self.alpha / self.rank


def _radius(value: object) -> object:
    """Check both forms at once: pydantic would report one error for each branch of a union."""
    if value == "auto":
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        return _wrong("must be auto or a number above 0")
    return float(value)  # type: ignore[arg-type]


class KeySection(_Section):
    """Where keys and token vectors are taken.

    Attributes:
        layer: name of the key layer; "auto" is a quarter of the way up the base model.
        pooling: how the states of the tokens become one key, under the scope rule `radius`.
        radius: L2 radius of a new cluster, in units of the key, under the scope rule `radius`.
        encoder: hub id or folder of a sentence encoder that reads prompts for their route, instead of the
            base model; None uses the base model.
    """

    layer: Text = "auto"
    pooling: Pooling = "auto"
    radius: Annotated[float | Literal["auto"], BeforeValidator(_radius)] = "auto"
    encoder: Text | None = None


class FalseFireSection(_Section):
    """The largest allowed share of false fires among the prompts of each kind, as measured in calibration.

    Attributes:
        unrelated: largest share among unrelated prompts.
        hard: largest share among hard prompts: an edit's question about another subject.
        same_subject: largest share among same-subject prompts: another question about an edit's subject.
    """

    unrelated: Share = 0.01
    hard: Share = 0.05
    same_subject: Share = 0.12


class RoutingSection(_Section):
    """Which prompts lie in an edit's scope.

    Attributes:
        scope: scope rule: `verified` asks the scope model about the nearest edits; `radius` is the clusters
            of the paper.
        max_false_fire: largest allowed share of false fires, for each kind of prompt.
        open_requests: what the base model reads for an open request about an edit's subject, such as "Tell me
            about Acme Robotics", and for whatever else lies in an edit's scope and wants another answer than
            its target: a question whether that is so, a text to be written with it, a statement. "context" is
            the prompt with the edit's prompt and target behind it, "base" the prompt alone. "auto" is context
            where a model that writes text is asked through a chat template, and base otherwise.
    """

    scope: Literal["verified", "radius"] = "verified"
    max_false_fire: FalseFireSection = FalseFireSection()
    open_requests: Literal["auto", "context", "base"] = "auto"


class CalibrationSection(_Section):
    """What the scope model learns from.

    Attributes:
        share: share of the subjects whose edits, rephrases and unrelated prompts calibration sees; the other
            subjects are left for evaluation. 0 uses the corpus alone.
        max_edits: largest number of edits that calibration uses.
        questions: approximate number of questions of the corpus that calibration learns from.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_edits: Count = 400
    questions: Count = 2200


class TrainingSection(_Section):
    """How the block of one batch is trained.

    Attributes:
        batch_size: number of edits that share one block.
        variants: number of variants of each prompt that its block is trained on; a block that is trained on
            one phrasing alone answers rephrases worse. Rephrases that calibration has seen are used first,
            paraphrases that melo makes fill the rest.
        max_steps: largest number of optimizer steps for a block.
        blocks_in_flight: number of blocks in a group: they are trained side by side in one pass, and
            committed together. The result is that of training one after the other.
        stop_at: stop before `max_steps` once the model gives every target token at least this probability;
            None trains all steps, as the published runs do.
        retries: number of retries of edits that failed: 1 retries with twice the steps, 2 also in blocks of a
            quarter of the size, 3 also one by one with four times the steps and twice the rank.
        optimizer: class of `torch.optim` and its arguments.
        lr_scheduler: class of `torch.optim.lr_scheduler` and its arguments; None keeps the rate constant.
    """

    batch_size: Count = 1
    variants: Annotated[int, Field(ge=0)] = 8
    max_steps: Count = 50
    blocks_in_flight: Count = 8
    stop_at: Annotated[float, Field(gt=0, lt=1)] | None = 0.95
    retries: Annotated[int, Field(ge=0, le=3)] = 3
    optimizer: OptimizerSection = OptimizerSection.model_validate({"name": "Adam", "lr": 6e-3})
    lr_scheduler: SchedulerSection | None = None


class GenerationSection(_Section):
    """How answers are generated.

    Attributes:
        max_new_tokens: largest length of an answer, in tokens, if its length is not known.
    """

    max_new_tokens: Count = 32


class Recipe(_Section):
    """One recipe, checked.

    Attributes:
        name: name of the recipe, and of the project that it makes.
        task: what is edited and how it is measured; a task of your own is `custom`.
        seed: seed of everything that is drawn at random. The same seed on the same machine gives the same
            blocks.
        model: the base model.
        dataset: the edits, and what they are measured against. A single edit needs none.
        lora: where blocks sit and how large they are.
        key: where keys and token vectors are taken.
        routing: which prompts lie in an edit's scope.
        calibration: what the scope model learns from.
        training: how the block of one batch is trained.
        generation: how answers are generated.
    """

    name: Annotated[str, AfterValidator(_file_safe)]
    task: Task
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: ModelSection
    dataset: DatasetSection | None = None
    lora: LoraSection = LoraSection()
    key: KeySection = KeySection()
    routing: RoutingSection = RoutingSection()
    calibration: CalibrationSection = CalibrationSection()
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()

    @model_validator(mode="before")
    @classmethod
    def _a_radius_asks_for_its_rule(cls, value: object) -> object:
        """Choose the scope rule `radius` for a recipe that gives a radius and no scope rule."""
        if not isinstance(value, dict):
            return value
        key, routing = value.get("key") or {}, value.get("routing") or {}
        if not isinstance(key, dict) or not isinstance(routing, dict) or "scope" in routing:
            return value
        if key.get("radius", "auto") == "auto":
            return value
        return {**value, "routing": {**routing, "scope": "radius"}}

    @model_validator(mode="after")
    def _key_fits_the_rule(self) -> Recipe:
        key, scope = self.key, self.routing.scope
        if scope == "radius" and key.radius == "auto":
            raise ValueError("routing.scope radius needs a number as key.radius")
        if scope == "radius" and key.encoder is not None:
            raise ValueError("key.encoder needs routing.scope verified, but routing.scope is radius")
        if scope == "verified" and key.radius != "auto":
            raise ValueError("key.radius needs routing.scope radius, but routing.scope is verified")
        if scope == "verified" and key.pooling != "auto":
            raise ValueError("key.pooling needs routing.scope radius, but routing.scope is verified")
        return self

    @field_validator("lora", "key", "routing", "calibration", "training", "generation", mode="before")
    @classmethod
    def _empty_section_is_all_defaults(cls, value: object) -> object:
        return {} if value is None else value

    def to_mapping(self) -> dict[str, Any]:
        """The whole recipe with its defaults, as JSON values; `recipe_from_mapping` reads it back."""
        return self.model_dump(mode="json")
