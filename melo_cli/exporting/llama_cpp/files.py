"""Blocks as llama.cpp's LoRA adapters in GGUF files: written, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from melo_cli.errors import ArtefactError
from melo_cli.exporting.block_shapes import BlockShape
from melo_cli.exporting.llama_cpp.layout import GgufLayout
from melo_store.records import Block, Matrix

_TYPES = {
    torch.float32: gguf.GGMLQuantizationType.F32,
    torch.float16: gguf.GGMLQuantizationType.F16,
    torch.bfloat16: gguf.GGMLQuantizationType.BF16,
}
_ARCHITECTURE, _TYPE = gguf.Keys.General.ARCHITECTURE, gguf.Keys.General.TYPE
_ADAPTER_TYPE, _ALPHA = gguf.Keys.Adapter.TYPE, gguf.Keys.Adapter.LORA_ALPHA

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class GgufAdapter:
    """What a file holds.

    Attributes:
        fields: `general.architecture`, `general.type` and `adapter.type`.
        alpha: llama.cpp adds `alpha / rank * B @ A`.
        tensors: `A [rank, in]` and `B [out, rank]` of each weight, named `<weight>.lora_a` and `.lora_b`.
    """

    fields: Mapping[str, str]
    alpha: float
    tensors: Tensors


@dataclass(frozen=True)
class AdapterFiles:
    """Writes blocks of one base model as adapters, and reads them back.

    Attributes:
        layout: llama.cpp's view of the base model.
        dtype: dtype of the weights in the files.
    """

    layout: GgufLayout
    dtype: torch.dtype

    def write(self, block: Block, shape: BlockShape, path: Path) -> None:
        """Write a block in the common shape of all blocks.

        Raises:
            ExportError: llama.cpp has no tensor for a module.
        """
        writer = gguf.GGUFWriter(path, self.layout.architecture)
        writer.add_string(_TYPE, gguf.GGUFType.ADAPTER)
        writer.add_string(_ADAPTER_TYPE, "lora")
        writer.add_float32(_ALPHA, shape.scale * shape.rank)
        for module in shape.modules:
            piece, name = shape.fit(block, module), self.layout.tensor(module)
            self._add(writer, f"{name}.lora_a", piece.A)
            self._add(writer, f"{name}.lora_b", piece.B[self.layout.rows(module, len(piece.B))])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def require_block(self, block: Block, shape: BlockShape, path: Path) -> None:
        """Refuse a file that adds anything else than the block does.

        Raises:
            ArtefactError: it is for another architecture, or a value differs.
        """
        adapter = read_adapter(path)
        wanted = {
            _ARCHITECTURE: self.layout.architecture,
            _TYPE: gguf.GGUFType.ADAPTER,
            _ADAPTER_TYPE: "lora",
        }
        parts = self._in_order_of_block(adapter.tensors, shape)
        same = (
            adapter.fields == wanted
            and adapter.alpha == np.float32(shape.scale * shape.rank)
            and len(adapter.tensors) == 2 * len(parts)
            and all(
                np.array_equal(A, self._rounded(shape.fit(block, module).A))
                and np.array_equal(B, self._rounded(shape.fit(block, module).B))
                for module, (A, B) in parts.items()
            )
        )
        if not same:
            raise ArtefactError(
                f"adapter {block.block_id}, read back from its file, is not the block; nothing was written",
                where="melo export",
            )

    def _in_order_of_block(
        self, tensors: Tensors, shape: BlockShape
    ) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """`A` and `B` by module, with the rows of `B` in transformers' order."""
        parts = {}
        for module in shape.modules:
            name = self.layout.tensor(module)
            A, moved = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
            B = np.empty_like(moved)
            B[self.layout.rows(module, len(B))] = moved
            parts[module] = A, B
        return parts

    def _add(self, writer: gguf.GGUFWriter, name: str, values: Matrix) -> None:
        kind = _TYPES[self.dtype]
        writer.add_tensor(name, quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)

    def _rounded(self, values: Matrix) -> NDArray[np.float32]:
        rounded: NDArray[np.float32] = torch.tensor(values).to(self.dtype).float().numpy()
        return rounded


def read_adapter(path: Path) -> GgufAdapter:
    """Read an adapter."""
    reader = gguf.GGUFReader(path)
    fields = {key: reader.fields[key].parts[-1] for key in (_ARCHITECTURE, _TYPE, _ADAPTER_TYPE)}
    return GgufAdapter(
        fields={key: bytes(value).decode("utf-8") for key, value in fields.items()},
        alpha=float(reader.fields[_ALPHA].parts[-1][0]),
        tensors={each.name: dequantize(each.data, each.tensor_type) for each in reader.tensors},
    )
