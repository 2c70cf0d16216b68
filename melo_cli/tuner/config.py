"""What a block looks like, to melo and to PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True)
class DynamicLoraConfig:
    """Shape and scale of the blocks of one project (MELO, Sec. 3.2; LoRA, arXiv 2106.09685).

    A block adds `scale * B @ A @ x` to each target module with `scale = lora_alpha / r`: nothing of
    how many blocks there are enters it.

    Attributes:
        r: rank of every block.
        lora_alpha: numerator of the scale.
        target_modules: full names of the modules that a block adds to.

    Raises:
        ValueError: `r` or `lora_alpha` is not positive, or no target module is named.
    """

    r: int
    lora_alpha: float
    target_modules: Sequence[str]

    def __post_init__(self) -> None:
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
    # Half a second that only exporting has to spend.
    from peft import LoraConfig

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
