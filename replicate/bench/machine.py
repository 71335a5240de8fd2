"""What this machine can do at most, and how to time things on it."""

import statistics
import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from replicate.bench import Measurement
from replicate.devices import choose_device, describe_device

SIDE = {"cpu": 2048, "cuda": 8192}  # matrices large enough that starting a product costs nothing


def rate(work: Callable[[], object], count: float, seconds: float = 2.0) -> float:
    """`count` per second of one call of `work`: the median over calls that fill `seconds`, after one that warms up."""
    work()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return count / statistics.median(times)


def synchronised(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """`work`, returning only when the device has finished."""

    def call() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def matrix_product(dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], None], float]:
    """A large matrix product, and the floating-point operations of one."""
    side = SIDE[device.type]
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    return synchronised(lambda: left @ right, device), 2 * side**3


@lru_cache
def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a large matrix product."""
    return rate(*matrix_product(dtype, device), 1.0)


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of one call of `work`: its matrix products and convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def product() -> Measurement:
    """Matrix product in bfloat16 beside float32."""
    device = choose_device("auto")
    return Measurement(
        measures=f"product of two {SIDE[device.type]} x {SIDE[device.type]} matrices in bfloat16: the ceiling of networks here",
        value=peak(torch.bfloat16, device) / 1e9,
        unit="GFLOP/s",
        peer="the same in float32",
        peer_value=peak(torch.float32, device) / 1e9,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )
