"""What a training runs on and with, for the record of the run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from hins_memory.training.fit.processes import process_count

__all__ = ["hardware", "package_version"]


def hardware() -> dict[str, Any]:
    """Return processor, cores, threads, accelerators and number of processes, as JSON-able values."""
    import torch

    from hins_memory.encoders.encoder import bf16_supported

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "bf16": bf16_supported(device),
        "processes": process_count(),
    }


def package_version(name: str) -> str | None:
    """Return the version of an installed package, None of one that runs without being installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name: Linux has it in a file, elsewhere Python knows as much as there is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
