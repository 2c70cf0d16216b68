"""For tests alone: rows without an adapter keep their answers in vLLM's build for processors.

Its LoRA kernels index adapters by -1 for such a row, and so give it the last one whenever the batch has a row
with an adapter (vLLM's issues 48421 and 49656). The kernels for GPUs leave those rows out.
"""

from functools import wraps


def install() -> None:
    """Have the first of the two LoRA products be zero in rows without an adapter."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    shrink = lora_ops.bgmv_shrink
    if hasattr(shrink, "__wrapped__"):
        return

    @wraps(shrink)
    def shrink_rows(inputs, weights, output, indices, scaling=1.0):  # type: ignore[no-untyped-def]
        shrink(inputs, weights, output, indices, scaling)
        output[indices[: len(output)] < 0] = 0

    lora_ops.bgmv_shrink = punica_cpu.bgmv_shrink = shrink_rows
