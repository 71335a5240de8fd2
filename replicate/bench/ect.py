"""Speed of ECT: correction and tuning beside their form landmark by landmark, and the network at the paper's width."""

from functools import partial

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.faces import synthetic
from replicate.methods import ect, ect_fitting
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import PDM

SHAPES = 48  # generated faces from which the shape model is learnt: more than its components
FACES = 16  # faces whose response maps are fitted at a time
PLAIN_FACES = 2  # of them, for the slow form
BATCH = 2  # crops that enter the network at a time


def _fitting_problem(config: ECTConfig) -> tuple[PDM, Tensor]:
    """A shape model of generated faces, and response maps (FACES, L, size, size) with some faint landmarks and some false peaks."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.as_tensor(synthetic.generate_many(2, range(SHAPES)).points, dtype=torch.float32)
    pdm = PDM.fit(shapes, config.frame, config.components)
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


def _networks() -> tuple[ect.FCN, ect.FCN, Tensor]:
    """A network at the paper's width with random weights, the same as it predicts, and crops."""
    torch.manual_seed(0)
    device, config = choose_device("auto"), ECTConfig()
    network = ect.FCN(config, points=68).to(device).eval().requires_grad_(False)
    crops = torch.rand(BATCH, 3, config.input_size, config.input_size, device=device)
    return network, ect.for_inference(network), crops


def plain_forward(network: ect.FCN, crops: Tensor) -> Tensor:
    """`FCN.forward` in float32 and PyTorch's default memory format, up to the maps (N, L, size, size): the peer, and a check."""
    x = (crops - 0.5) / 0.25
    for layer in network.stem[:2]:
        x = torch.nn.functional.max_pool2d(layer(x), 2)
    conv3 = network.stem[2](x)
    fused = network.fusion(torch.cat([conv3, network.context(conv3)], 1))
    return torch.nn.functional.interpolate(network.conv5_fusion(fused), scale_factor=4, mode="bilinear")


@torch.inference_mode()
def inference() -> Measurement:
    """Response maps at the paper's width, as they are predicted."""
    plain, fast, crops = _networks()
    device = crops.device
    expected = plain_forward(plain, crops)
    deviation = ((fast(crops)["upsampled"] - expected).abs().mean() / expected.std()).item()
    per_face = operations(lambda: plain_forward(plain, crops)) / len(crops)
    fast_work = synchronised(partial(fast, crops), device)
    plain_work = synchronised(partial(plain_forward, plain, crops), device)
    return Measurement(
        f"response maps, width {fast.config.width:g}, {fast.config.input_size} x {fast.config.input_size} pixels, batches of {BATCH}, bfloat16, channels-last; "
        f"responses move by {deviation:.1%} of their deviation on average; limit: {per_face / 1e9:.2f} GFLOP a face at the speed of the "
        "bfloat16 matrix product",
        value=rate(fast_work, BATCH),
        unit="faces/s",
        peer="the same network in eager float32",
        peer_value=rate(plain_work, BATCH),
        limit=peak(torch.bfloat16, device) / per_face,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )
