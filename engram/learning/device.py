"""Where tensors live and how torch computes: device, precision, threads and determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from engram.errors import MemoryShortageError
from engram.spec.training import Training

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
"""What torch's allocators and CUDA's libraries write where they raise a plain RuntimeError."""


def pick_device() -> torch.device:
    """Return the CUDA device where one is visible, else the CPU (hide GPUs by CUDA_VISIBLE_DEVICES="")."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configure(device: torch.device, threads: int) -> None:
    """Set the process up so that equal inputs give equal bytes; cheap enough to call before every round.

    Strict on the CPU, where bit identity is promised (federation.md, "Determinism"); on CUDA an operation
    without a deterministic implementation is allowed.
    """
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        return
    if not torch.are_deterministic_algorithms_enabled():
        # The same switch as torch.use_deterministic_algorithms(True), which also loads torch's compiler: half
        # a second and 35 MB in every process.
        torch.set_deterministic_debug_mode("error")
        # Filling every fresh buffer with NaN is a debugging aid that costs time and changes no result.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def precision(device: torch.device, training: Training) -> AbstractContextManager[object]:
    """Return the autocast context of `training.precision`; weights and optimiser stay float32."""
    wanted = training.precision
    if wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of main memory on `device`, without waiting for what the device has still to do.

    A plain copy to a GPU waits until the GPU has caught up, once a batch; out of pinned memory it is only
    queued.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def gpu_metrics(device: torch.device) -> dict[str, float]:
    """Return {"gpu_utilization_ratio": 0..1} over the driver's last sample period; nothing on the CPU.

    Needs the package nvidia-ml-py (extra `gpu`); without it the metric is absent.
    """
    if device.type != "cuda":
        return {}
    try:
        return {"gpu_utilization_ratio": torch.cuda.utilization(device) / 100}
    except ModuleNotFoundError:
        return {}


@contextmanager
def memory_guard(where: str) -> Iterator[None]:
    """Turn running out of memory inside the block into a MemoryShortageError that names `where`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(where) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise _out_of_memory(where) from error


def _out_of_memory(where: str) -> MemoryShortageError:
    return MemoryShortageError(
        f"out of memory: {where}",
        field="spec.training.batchSize",
        remedy="lower batchSize, take a smaller spec.model, or give the process more memory",
    )
