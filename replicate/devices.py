"""What the machine computes with, in words for records and pages."""

import platform
from pathlib import Path

import torch

from replicate.errors import ReplicateError


def choose_device(device: str) -> torch.device:
    """`auto` is a GPU where there is one and the CPU otherwise; any other name is PyTorch's.

    Raises
    ------
    ReplicateError
        If the named device is unknown or absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ReplicateError(
            f"device: got {device!r}, expected auto, cpu or an available GPU such as cuda ({error})"
        ) from error
    return chosen


def describe_device(device: str | torch.device) -> str:
    """For example ``AMD EPYC, 2 threads`` or ``NVIDIA H200``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
