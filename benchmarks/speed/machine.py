"""How fast this machine reads memory and multiplies matrices, which bounds everything else."""

from __future__ import annotations

import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from .timing import seconds_of

MEBIBYTE = 2**20
ROW = 4096


@dataclass(frozen=True)
class Machine:
    """Measured limits.

    Attributes:
        bytes_per_second: Highest of the measured memory bandwidths.
        flops_per_second: Floating-point operations of a large matrix product.
    """

    bytes_per_second: float
    flops_per_second: float

    def bound(self, read_bytes: float | int, flops: float | int) -> float:
        """Seconds that nothing which reads and multiplies so much can stay below (the roofline)."""
        return max(read_bytes / self.bytes_per_second, flops / self.flops_per_second)


def describe_machine() -> dict[str, Any]:
    """What timings depend on: device, threads, versions."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def free_memory() -> int:
    """Bytes of memory that are left."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_machine(*, mebibytes: int, matrix_size: int, repeats: int) -> list[dict[str, Any]]:
    """Time reading, copying, a matrix times a vector, and a matrix times a matrix.

    The matrices have the type in which models run here: bfloat16 on CUDA, float32 on a CPU.

    Args:
        mebibytes: Size of the tensors that are read.
        matrix_size: Rows and columns of the multiplied matrices.
        repeats: Timings of each, after one that does not count.

    Returns:
        A record each, with `bytes` or `flops` of one time.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    large = torch.ones(mebibytes * MEBIBYTE // dtype.itemsize // ROW, ROW, device=device, dtype=dtype)
    target, vector = torch.empty_like(large), torch.ones(ROW, device=device, dtype=dtype)
    square = torch.ones(matrix_size, matrix_size, device=device, dtype=dtype)
    work = {
        "read": (lambda: large.sum(), {"bytes": large.nbytes}),
        "copy": (lambda: target.copy_(large), {"bytes": 2 * large.nbytes}),
        "matrix times vector": (lambda: large @ vector, {"bytes": large.nbytes}),
        "matrix times matrix": (lambda: square @ square, {"flops": 2 * matrix_size**3}),
    }
    records = []
    for name, (do, amount) in work.items():
        do()
        seconds = [seconds_of(do) for _ in range(repeats)]
        records.append({"contender": name, "quantity": "limit", **amount, "seconds": seconds})
    return records


def machine_of(records: list[dict[str, Any]]) -> Machine:
    """The limits, from the records of `measure_machine`."""
    speeds = {
        kind: [record[kind] / statistics.median(record["seconds"]) for record in records if kind in record]
        for kind in ("bytes", "flops")
    }
    return Machine(max(speeds["bytes"]), max(speeds["flops"]))
