"""Dynamic LoRA in the shape of a PEFT tuner."""

from melo_cli.tuner.config import DynamicLoraConfig, peft_lora_config
from melo_cli.tuner.layer import ActiveBlocks, DynamicLoraLayer, SliceBank
from melo_cli.tuner.model import DynamicLoraModel

__all__ = [
    "ActiveBlocks",
    "DynamicLoraConfig",
    "DynamicLoraLayer",
    "DynamicLoraModel",
    "SliceBank",
    "peft_lora_config",
]
