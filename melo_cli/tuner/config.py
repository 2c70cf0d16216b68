"""What a block looks like: the PEFT config of dynamic LoRA."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import LoraConfig
from peft.config import PeftConfig
from peft.utils import PeftType


@dataclass
class DynamicLoraConfig(PeftConfig):
    """Shape and scale of the blocks of one project (MELO, Sec. 3.2; LoRA, arXiv 2106.09685).

    A block adds `scale * B @ A @ x` to each target module with `scale = lora_alpha / r`: nothing of
    how many blocks there are enters it.

    Raises:
        ValueError: `r` or `lora_alpha` is not positive, or no target module is named.
    """

    r: int = field(default=2, metadata={"help": "Rank of every block."})
    lora_alpha: float = field(default=40.0, metadata={"help": "Numerator of the scale, alpha / r."})
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Full names of the modules that a block adds to."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        # What a block is on disk: an ordinary LoRA adapter.
        self.peft_type = PeftType.LORA
        if self.r < 1:
            raise ValueError(f"r must be at least 1, not {self.r}")
        if self.lora_alpha <= 0:
            raise ValueError(f"lora_alpha must be positive, not {self.lora_alpha}")
        if not self.target_modules:
            raise ValueError("target_modules names no module")

    @property
    def scale(self) -> float:
        """`alpha / rank`, the factor on `B @ A`."""
        return self.lora_alpha / self.r


def peft_lora_config(
    *,
    rank: int,
    scale: float,
    target_modules: list[str],
    fan_in_fan_out: bool,
    task_type: str | None,
    base_model: str,
    revision: str | None,
) -> LoraConfig:
    """The ordinary PEFT config under which one block is an adapter: `lora_alpha = scale * rank`."""
    alpha = scale * rank
    return LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # type: ignore[arg-type]  # PEFT takes both
        target_modules=sorted(target_modules),
        fan_in_fan_out=fan_in_fan_out,
        lora_dropout=0.0,
        bias="none",
        task_type=task_type,
        base_model_name_or_path=base_model,
        revision=revision,
        inference_mode=True,
    )
