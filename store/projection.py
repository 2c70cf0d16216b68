"""Random matrices that a seed names, the same on every machine and by every version."""

from __future__ import annotations

import hashlib

import numpy as np

from melo_store.records import Vector


def random_projection(seed: int, module: str, rank: int, width: int) -> Vector:
    """`A [rank, width]` float32 of a target module, uniform between plus and minus `width ** -0.5`.

    That is how LoRA starts its `A` (Kaiming's uniform with `a = sqrt(5)`). A block whose `A` stays as it
    started (LoRA-FA, arXiv 2308.03303) is stored as its `B` and the seed. The numbers come from the raw
    stream of Philox (Salmon et al. 2011), which NumPy keeps as it is, and not from a distribution of NumPy's,
    which may change. The rows of a lower rank are the first of a higher one.

    Args:
        seed: any integer.
        module: name of the module; each has numbers of its own.
        rank: number of rows.
        width: number of columns: the inputs of the module.
    """
    name = hashlib.blake2b(f"{seed}:{module}".encode(), digest_size=16).digest()
    raw = np.random.Philox(key=int.from_bytes(name, "little")).random_raw(rank * width)
    unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    scaled: Vector = (unit * np.float32(width**-0.5)).reshape(rank, width)
    return scaled
