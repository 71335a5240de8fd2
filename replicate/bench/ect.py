"""Speed of ECT: correction and tuning beside their form landmark by landmark, the network at the paper's width, and both together."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.faces import synthetic
from replicate.methods import ect, ect_fitting
from replicate.methods.ect import FCN, ECTConfig
from replicate.methods.ect_fitting import PDM

SHAPES = 48  # generated faces from which the shape model is learnt: more than its components
FACES = 16  # faces whose response maps are fitted at a time
PLAIN_FACES = 2  # of them, for the slow form
BATCH = 2  # crops that enter the network at a time
Time = TypeVar("Time", float, np.ndarray)


def shape_model(config: ECTConfig) -> tuple[PDM, Tensor]:
    """A shape model of generated faces, and the shapes that it was learnt from, (SHAPES, 68, 2)."""
    shapes = _shapes(SHAPES)
    return PDM.fit(shapes, config.frame, config.components), shapes


@lru_cache(maxsize=1)
def _shapes(count: int) -> Tensor:
    return torch.as_tensor(synthetic.generate_many(2, range(count)).points, dtype=torch.float32)


def _fitting_problem(config: ECTConfig) -> tuple[PDM, Tensor]:
    """A shape model, and response maps (FACES, L, size, size) with some faint landmarks and some false peaks."""
    generator = torch.Generator().manual_seed(0)
    pdm, shapes = shape_model(config)
    points = config.frame.canonical(shapes[:FACES])
    faint = torch.rand(points.shape[:2], generator=generator)[..., None, None] ** 0.3
    elsewhere = points + 40 * config.unit * torch.randn(points.shape, generator=generator)
    false = torch.rand(points.shape[:2], generator=generator)[..., None, None] ** 8
    maps = faint * ect.target_maps(points, config) + false * ect.target_maps(elsewhere, config)
    return pdm, maps


def plain_refine(maps: np.ndarray, start: np.ndarray, pdm: PDM, config: ECTConfig) -> np.ndarray:
    """Correction and tuning of one face by loops over its landmarks, with full densities over their patches, as the official code has them.

    Parameters
    ----------
    maps : array
        (L, H, W).
    start : array
        (L, 2), the peaks.

    Returns
    -------
    array
        (L, 2).
    """
    bases = pdm.bases.flatten(0, 1).double().numpy()  # (2L, 4 + m)
    mean, precision = pdm.mean.flatten().double().numpy(), np.diag(pdm.precision.double().numpy())
    unit2 = config.unit**2

    def step(p: np.ndarray, v: np.ndarray, w: np.ndarray, strength: float) -> np.ndarray:  # Eq. 8
        weights = np.diag(np.repeat(w, 2))
        pull = bases.T @ weights @ v.ravel() - strength * precision @ p
        return np.linalg.inv(bases.T @ weights @ bases + strength * precision) @ pull

    patches = [_patch(*pair, config.patch(0)) for pair in zip(maps, start, strict=True)]
    w = np.array([_confidence(*patch, config) for patch in patches])
    p = step(np.zeros(len(precision)), start.ravel() - mean, w, config.gamma * unit2)
    for k in range(len(config.patches)):
        shape = (mean + bases @ p).reshape(-1, 2)
        patches = [_patch(*pair, config.patch(k)) for pair in zip(maps, shape, strict=True)]
        w = np.array([_confidence(*patch, config) for patch in patches])
        rho = config.rho2 * unit2 / w
        v = np.array([_mean_shift(*patch, *one) for patch, *one in zip(patches, shape, rho, strict=True)])
        p = p + step(p, v, w, pdm.noise)
    return (mean + bases @ p).reshape(-1, 2)


def _patch(response_map: np.ndarray, centre: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a patch (side, side, 2), as (x, y), and their responses (side, side); what lies outside the map is 0."""
    low = np.ceil(centre - side / 2).astype(int)
    x, y = np.meshgrid(*(begin + np.arange(side) for begin in low))
    height, width = response_map.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    responses = response_map[y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.stack([x, y], -1), np.where(inside, responses, 0).clip(0).astype(float)


def _confidence(pixels: np.ndarray, responses: np.ndarray, config: ECTConfig) -> float:
    """Eq. 15 of one landmark."""
    total = responses.sum()
    share = responses[..., None] / max(total, np.finfo(float).tiny)
    mean = (share * pixels).sum((0, 1))
    variance = (share * (pixels - mean) ** 2).sum((0, 1)).mean()
    found = ect_fitting.confidence(torch.as_tensor(total), torch.as_tensor(variance), config)
    return found.item()


def _mean_shift(pixels: np.ndarray, responses: np.ndarray, centre: np.ndarray, rho: float) -> np.ndarray:
    """Eq. 9 of one landmark."""
    density = responses * multivariate_normal(centre, rho).pdf(pixels)
    total = density.sum()
    return (density[..., None] * pixels).sum((0, 1)) / total - centre if total > 0 else np.zeros(2)


@torch.inference_mode()
def tuning() -> Measurement:
    """Correction and five iterations of the tuning, from the peaks on."""
    config, device = ECTConfig(), choose_device("auto")
    pdm, maps = _fitting_problem(config)
    start = ect_fitting.peaks(maps)
    few = list(zip(maps[:PLAIN_FACES].numpy(), start[:PLAIN_FACES].double().numpy(), strict=True))
    plain = rate(lambda: [plain_refine(*face, pdm, config) for face in few], len(few))
    pdm, maps, start = pdm.to(device), maps.to(device), start.to(device)
    ours = rate(synchronised(partial(ect_fitting.refine, maps, start, pdm, config), device), len(maps))
    return Measurement(
        f"correction and {len(config.patches)} iterations of the weighted mean shift, {maps.shape[1]} landmarks, {pdm.active} components, maps of "
        f"{config.input_size} x {config.input_size} pixels, {len(maps)} faces at a time",
        value=ours,
        unit="faces/s",
        peer="the same landmark by landmark, with the full density of each patch",
        peer_value=plain,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


def network_and_crops(config: ECTConfig, count: int, device: torch.device) -> tuple[FCN, Tensor]:
    """A network with random weights, which take as long as trained ones, and crops (count, 3, size, size) of noise."""
    torch.manual_seed(0)
    network = FCN(config, points=68).to(device).eval().requires_grad_(False)
    return network, torch.rand(count, 3, config.input_size, config.input_size, device=device)


def plain_forward(network: FCN, crops: Tensor) -> Tensor:
    """`response_maps` in float32 and PyTorch's default memory format: the peer, and a check."""
    x = (crops - 0.5) / 0.25
    for layer in network.stem[:2]:
        x = torch.nn.functional.max_pool2d(layer(x), 2)
    conv3 = network.stem[2](x)
    fused = network.fusion(torch.cat([conv3, network.context(conv3)], 1))
    return torch.nn.functional.interpolate(network.conv5_fusion(fused), scale_factor=4, mode="bilinear")


def response_maps(network: FCN, crops: Tensor) -> Tensor:
    """What a network makes of crops, (N, L, size, size), as `ect_fitting.predict` has it."""
    return ect.upsampled(network(crops)[-1])


@torch.inference_mode()
def inference() -> Measurement:
    """Response maps at the paper's width, as they are predicted."""
    plain, crops = network_and_crops(ECTConfig(), BATCH, choose_device("auto"))
    fast = ect.for_inference(plain)
    expected = plain_forward(plain, crops)
    deviation = ((response_maps(fast, crops) - expected).abs().mean() / expected.std()).item()
    per_face = operations_per_face(plain, crops)
    return Measurement(
        f"response maps, {_described(fast, crops)}, bfloat16, channels-last; responses move by {deviation:.1%} of their deviation on average; "
        f"limit: {per_face / 1e9:.2f} GFLOP a face at the speed of the bfloat16 matrix product",
        value=_rate(partial(response_maps, fast, crops), crops),
        unit="faces/s",
        peer="the same network in eager float32",
        peer_value=_rate(partial(plain_forward, plain, crops), crops),
        limit=peak(torch.bfloat16, crops.device) / per_face,
        device=describe_device(crops.device),
        threads=torch.get_num_threads(),
    )


@torch.inference_mode()
def pipeline() -> Measurement:
    """The whole method at the paper's width, from crops to points, and the share of each of its steps."""
    plain, crops = network_and_crops(ECTConfig(), BATCH, choose_device("auto"))
    fast, (pdm, _) = ect.for_inference(plain), shape_model(plain.config)
    per_face = operations_per_face(plain, crops)
    parts = parts_of(fast, pdm.to(crops.device), crops)
    shares = step_times({name: 1 / _rate(part, crops) for name, part in parts.items()})
    whole = sum(shares.values())
    told = ", ".join(f"{name} {seconds / whole:.1%}" for name, seconds in shares.items())
    peer = synchronised(partial(plain_pipeline, plain, pdm, crops[:1]), crops.device)
    return Measurement(
        f"from crops to points, {_described(fast, crops)}; of the time: {told}; limit: that of the maps, {per_face / 1e9:.2f} GFLOP a face at the "
        "speed of the bfloat16 matrix product",
        value=1 / whole,
        unit="faces/s",
        peer="network in eager float32, and the fit landmark by landmark, one face at a time",
        peer_value=rate(peer, 1),
        limit=peak(torch.bfloat16, crops.device) / per_face,
        device=describe_device(crops.device),
        threads=torch.get_num_threads(),
    )


def parts_of(fast: FCN, pdm: PDM, crops: Tensor) -> dict[str, Callable[[], object]]:
    """What `ect_fitting.predict` does with a batch, in parts that can be timed: `step_times` makes steps of their times.

    Parameters
    ----------
    fast : FCN
        As `ect.for_inference` gives it.
    pdm : PDM
        On the network's device, as the crops.
    """
    maps = response_maps(fast, crops)
    start = ect_fitting.peaks(maps)
    fit = partial(ect_fitting.refine, maps, start, pdm, fast.config)
    return {
        "maps": partial(response_maps, fast, crops),
        "peaks": partial(ect_fitting.peaks, maps),
        "correction": partial(fit, iterations=0),
        "correction and tuning": fit,
    }


def step_times(times: Mapping[str, Time]) -> dict[str, Time]:
    """Times of the method's four steps, in their order, from those of its parts: numbers or arrays."""
    steps = {name: times[name] for name in ("maps", "peaks", "correction")}
    return steps | {"tuning": times["correction and tuning"] - times["correction"]}


def plain_pipeline(network: FCN, pdm: PDM, crops: Tensor) -> np.ndarray:
    """Points (N, L, 2) in pixels of the crops, by the slow form of each step."""
    maps = plain_forward(network, crops)
    found = zip(maps.cpu().numpy(), ect_fitting.peaks(maps).cpu().double().numpy(), strict=True)
    return np.stack([plain_refine(*face, pdm, network.config) for face in found])


def operations_per_face(network: FCN, crops: Tensor) -> float:
    """Floating-point operations of the response maps of a face: matrix products and convolutions."""
    return operations(lambda: plain_forward(network, crops)) / len(crops)


def _described(network: FCN, crops: Tensor) -> str:
    size = network.config.input_size
    return f"width {network.config.width:g}, {size} x {size} pixels, batches of {len(crops)}"


def _rate(work: Callable[[], object], crops: Tensor) -> float:
    """Faces per second of one call of `work`."""
    return rate(synchronised(work, crops.device), len(crops))
