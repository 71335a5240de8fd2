"""Estimation, correction and tuning, ECT (Zhang, Li, Sun and Liu, "Combining Data-Driven and Model-Driven Methods for Robust
Facial Landmark Detection"): the configuration and the estimation, §III-B. Correction and tuning are in `ect_fitting`.

Symbols: ``M`` response maps, ``phi`` what the network gives for them, ``sigma`` their scope. Shapes are (N, L, 2) in pixels of the input frame:
(x, y), 0-based, pixel centres at integers. Response maps are (N, L, size, size), a pixel of a map being a pixel of the frame.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.faces.perturbations import CropAndTurn, Frame
from replicate.training import Schedule
from replicate.vocabulary import check_one_of

VERSION = 1  # raise when a change here alters what a training gives
NETWORKS = ("dilated", "truncated", "spatial fusion")
STRIDE = 4  # Fig. 2a: frame pixels for each pixel of a small map, along an axis
CONFIDENCES = ("deviation", "variance", "as printed")


@dataclass(frozen=True)
class ECTConfig:
    """What determines the networks and the fit besides training faces and seed. Lengths are in pixels of an input of 256 pixels.

    Raises
    ------
    ReplicateError
        For a word that is none of `NETWORKS` or `CONFIDENCES`, or two networks to start from, or one that sees faces otherwise.
    """

    network: str = "dilated"  # Fig. 2; "truncated": §IV-C; "spatial fusion": [22], which it replaces
    width: float = 1.0  # Fig. 2: factor on the channels of every layer but the last of each subnet
    input_size: int = 256  # §III-B; another size scales all lengths
    shape_extent: float = 160.0  # our choice: longer side of the mean shape, with room to turn by 30 degrees
    sigma: float = 6.0  # §IV; called a variance there, a standard deviation in the official code
    peak: float = 16 / (6 * math.sqrt(2 * math.pi))  # official code: highest response; a and b belong to it
    a: float = 0.25  # §IV, Eq. 15
    b: float = 25.0  # §IV, Eq. 15
    confidence: str = "deviation"  # official code; as printed, all weights are 1 (`ect_fitting.confidence`)
    components: int = 30  # official code: m, shape components in use
    gamma: float = 20.0  # official code: Eq. 12, in squared pixels
    rho2: float = 20.0  # official code: rho^2 of the kernel in Eq. 4, in squared pixels
    prior_rho2: float | None = None  # rho^2 in Eq. 8; None is the code's, the mean of the unused eigenvalues
    patches: tuple[int, ...] = (30, 30, 30, 20, 20)  # official code: r in each iteration; the last one lasts
    turning: bool = False  # Eq. 13: Phi keeps its orientation; true: it turns and scales with the face, Eq. 1
    kept: float = 248 / 256  # §IV: side of the random sub-image
    rotation: float = 30.0  # §IV: degrees
    batch: int = 10  # official code
    step_size: float = 1e-3  # our choice: Adam's; 1e-8 in §IV belongs to plain descent on a sum over pixels
    decay: bool = True  # our choice, as for the other methods
    samples: int = 1_000_000  # our choice: the paper prints no number of iterations
    validation_faces: int = 100  # our choice, as for DAN
    validate_every: int = 200  # our choice
    patience: int = 40  # our choice
    finetuning: float = 0.1  # our choice: share of samples and step size for the truncated network, §IV-C
    narrow: "ECTConfig | None" = None  # our choice: width and budget of a network to train first and to widen
    pretraining: "ECTConfig | None" = (
        None  # our choice: the same of a network to train first on generated faces
    )
    sanity_gate: bool = True  # stop a model that does not beat the mean shape; `smoke` is too short to ask it

    def __post_init__(self) -> None:
        check_one_of("network", self.network, NETWORKS)
        check_one_of("confidence", self.confidence, CONFIDENCES)
        if self.narrow and self.pretraining:
            raise ReplicateError("narrow, pretraining: got both; expected one network at most to start from")
        seen = ("input_size", "shape_extent", "sigma", "peak")
        for kind, names in (("narrow", (*seen, "validation_faces")), ("pretraining", seen)):
            for name in names if getattr(self, kind) else ():
                if (got := getattr(getattr(self, kind), name)) != getattr(self, name):
                    raise ReplicateError(
                        f"{kind}: got {name} {got}, expected {getattr(self, name)} as of the network that grows from it"
                    )

    @property
    def unit(self) -> float:
        """Pixels of this input for each pixel of the paper's."""
        return self.input_size / 256

    @property
    def frame(self) -> Frame:
        return Frame(self.input_size, self.shape_extent * self.unit, zoom=1.0)

    @property
    def perturbation(self) -> CropAndTurn:
        return CropAndTurn(self.kept, self.rotation)

    def patch(self, iteration: int) -> int:
        """Side r of the patches in an iteration of the tuning, counted from 0, in pixels of this input."""
        return round(self.patches[min(iteration, len(self.patches) - 1)] * self.unit)

    def schedule(self) -> Schedule:
        """Schedule of the training."""
        return Schedule(
            self.batch, self.step_size, self.samples, self.decay, self.validate_every, self.patience
        )


# `cpu` shrinks frame and network, `smoke` both to almost nothing. What the fit does stays the same up to the scale of pixels, but small
# maps have fewer of them, so that their peaks are further apart: ECT-A32.
_SMOKE = ECTConfig(
    width=1 / 16, input_size=64, samples=300, validation_faces=8, validate_every=10, sanity_gate=False
)
_CPU = ECTConfig(width=1 / 4, input_size=128, step_size=2e-3, samples=64_000, patience=1000)
_CPU_REAL = replace(  # generated faces first, photographs last, most of them at half of the width
    _CPU,
    width=1 / 2,
    step_size=1e-3,
    samples=20_000,
    narrow=replace(_CPU, samples=80_000, pretraining=_CPU),
)
CONFIGS = {
    (profile, faces): config
    for faces in ("synthetic", "real")
    for profile, config in {
        "smoke": _SMOKE,
        "cpu": _CPU_REAL if faces == "real" else _CPU,
        "gpu": ECTConfig(),
    }.items()
}


# §III-B Convolutional response map ---------------------------------------------------------------------------------------------------

Branches = tuple[tuple[int, int], ...]  # (kernel, dilation) of convolutions side by side
_ONE, _FIVE, _FOUR = ((1, 1),), ((5, 1),), ((3, 1), (3, 2), (3, 3), (3, 4))
_MIXED = ((3, 1), (3, 2), (3, 4), (5, 3))
# Channels of each branch, and branches: conv1 to conv7, then conv1_fusion to conv4_fusion. Fig. 2; numbers of the official code.
_STEM = ((128, _FIVE), (128, _FIVE), (128, _FIVE))
_DILATED = (*_STEM, (128, _FOUR), (256, _FOUR), (512, _ONE), (256, _ONE))
_SPATIAL = (*_STEM, (256, ((9, 1),)), (512, ((9, 1),)), (256, _ONE), (256, _ONE))
_LAYERS: dict[str, tuple[tuple[tuple[int, Branches], ...], ...]] = {
    "dilated": (_DILATED, ((64, _FOUR[:3]), (64, _MIXED), (128, _MIXED), (256, _ONE))),
    "truncated": (_DILATED, ()),
    "spatial fusion": (_SPATIAL, ((64, ((7, 1),)), (64, ((13, 1),)), (128, ((13, 1),)), (256, _ONE))),
}


class Inception(nn.Module):
    """Convolutions with different dilations side by side, joined, and ReLU: Fig. 2b; with one branch, a plain layer."""

    def __init__(self, channels: int, out: int, branches: Branches) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, out, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            for kernel, dilation in branches
        )
        for branch in self.branches:
            nn.init.kaiming_normal_(branch.weight, nonlinearity="relu")  # our choice: sd 0.01 fades
            nn.init.zeros_(branch.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out * branches, H, W)."""
        learning = torch.is_grad_enabled()
        parts = [_exact(branch, x) if learning and _unsafe(branch) else branch(x) for branch in self.branches]
        return functional.relu_(torch.cat(parts, 1) if len(parts) > 1 else parts[0])


class FCN(nn.Module):
    """PrimaryNet and FusionNet: Fig. 2a."""

    def __init__(self, config: ECTConfig, points: int) -> None:
        super().__init__()
        self.config = config
        primary, fusion = _LAYERS[config.network]
        conv3 = round(primary[2][0] * config.width)
        layers, channels = _chain(3, primary, config.width)
        self.stem, self.context = nn.ModuleList(layers[:3]), nn.Sequential(*layers[3:])
        self.conv8 = _last(channels, points)
        layers, fused = _chain(conv3 + channels, fusion, config.width)
        self.fusion = nn.Sequential(*layers)
        self.conv5_fusion = _last(fused, points) if fusion else None

    def forward(self, crops: Tensor) -> list[Tensor]:
        """PrimaryNet and FusionNet: maps (N, L, size / 4, size / 4) of RGB crops (N, 3, size, size) in [0, 1].

        Returns
        -------
        list of Tensor
            The maps of the primary part and, unless truncated, of the fusion part, both contiguous; `upsampled` makes response maps of
            the last ones.
        """
        x = ((crops - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        with torch.autocast(crops.device.type, torch.bfloat16):
            x = functional.max_pool2d(self.stem[0](x), 2)
            x = functional.max_pool2d(self.stem[1](x), 2)
            conv3 = self.stem[2](x)
            conv7 = self.context(conv3)
            maps = [_exact(self.conv8, conv7)]
            if self.conv5_fusion is not None:
                fused = self.fusion(torch.cat([conv3, conv7], 1))
                maps.append(_exact(self.conv5_fusion, fused))
        return [small.contiguous() for small in maps]


def upsampled(small: Tensor) -> Tensor:
    """UpsampleNet: response maps (N, L, size, size) of small maps (N, L, size / 4, size / 4).

    It is the deconvolution of Fig. 2a with bilinear weights, but for two pixels at each border, where it goes on without a fall.
    """
    return functional.interpolate(small, scale_factor=STRIDE, mode="bilinear")


def _chain(
    channels: int, layers: Iterable[tuple[int, Branches]], width: float
) -> tuple[list[Inception], int]:
    """Layers one after the other, and the number of channels that comes out."""
    made: list[Inception] = []
    for out, branches in layers:
        made.append(Inception(channels, round(out * width), branches))
        channels = round(out * width) * len(branches)
    return made, channels


def _last(channels: int, points: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, points, 1)
    nn.init.normal_(layer.weight, std=0.001)  # our choice: responses start near zero
    nn.init.zeros_(layer.bias)
    return layer


def _unsafe(layer: nn.Conv2d) -> bool:
    """Whether its bfloat16 gradient may be wrong: on CPUs, oneDNN's for dilated filters reads beyond its input, into NaN or a crash, where
    more than 16 channels are no multiple of 16. None is at widths that are multiples of 1/4."""
    return layer.dilation[0] > 1 and layer.in_channels > 16 and layer.in_channels % 16 > 0


def _exact(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A layer in full precision, as the last ones are: bfloat16 has too few digits to tell a peak from its neighbours."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


def target_maps(points: Tensor, config: ECTConfig, stride: int = 1) -> Tensor:
    """Ideal response maps, Gaussians around the points: §III-B.

    Parameters
    ----------
    points : Tensor
        (N, L, 2) in frame pixels; an invisible point is NaN and its map is zero (§IV).
    stride : int
        Frame pixels for each pixel of the map: pixel j stands for the place ``stride * j + (stride - 1) / 2``.

    Returns
    -------
    Tensor
        (N, L, size / stride, size / stride).
    """
    x, y = _target_factors(points, config, stride)
    return y[..., :, None] * x[..., None, :]


def _target_factors(points: Tensor, config: ECTConfig, stride: int) -> tuple[Tensor, Tensor]:
    """An ideal map along x and along y, two (N, L, size / stride), of which it is the product."""
    sigma = config.sigma * config.unit
    axis = torch.arange(config.input_size // stride, dtype=points.dtype, device=points.device)
    places = stride * axis + (stride - 1) / 2
    along = torch.exp(-(places - points[..., None]).square() / (2 * sigma**2))  # (N, L, 2, size / stride)
    x, y = (math.sqrt(config.peak) * along).nan_to_num(0).unbind(2)
    return x, y


def loss(maps: Sequence[Tensor], points: Tensor, config: ECTConfig) -> Tensor:
    """Eq. 10 for the small maps that `FCN` gives and for the response maps, in units of the squared norm of an ideal map.

    So maps of zeros cost 1 at each of these places. Returns a scalar, the mean over faces and landmarks.
    """
    norm = math.pi * (config.sigma * config.unit * config.peak) ** 2
    ideal = target_maps(points, config, STRIDE)
    total = STRIDE**2 * sum((small - ideal).square().sum() for small in maps)
    total = total + upsampled_error(maps[-1], points, config)
    return total / (norm * points[..., 0].numel())


def upsampled_error(small: Tensor, points: Tensor, config: ECTConfig) -> Tensor:
    """``sum((upsampled(small) - target_maps(points))^2)``, a scalar, without making any of these maps.

    Upsampling is linear along each axis, ``U m U^T``, and an ideal map is a product ``t_y t_x^T``, so the sum is
    ``<m, G m G> - 2 (U^T t_y)^T m (U^T t_x) + |t_y|^2 |t_x|^2`` with ``G = U^T U``: exact, and on 1/16 of the pixels.
    """
    pixels = small.shape[-1]
    one = torch.eye(pixels, dtype=small.dtype, device=small.device)
    along = functional.interpolate(one[None], scale_factor=STRIDE, mode="linear")[0]  # U^T
    x, y = _target_factors(points, config, stride=1)
    gram = along @ along.T
    quadratic = (small * (gram @ small @ gram)).sum()
    cross = (small * (y @ along.T)[..., :, None] * (x @ along.T)[..., None, :]).sum()
    return quadratic - 2 * cross + (y.square().sum(-1) * x.square().sum(-1)).sum()


# Inference ----------------------------------------------------------------------------------------------------------------------


def for_inference(network: FCN) -> FCN:
    """A copy that computes the same faster: matrices kept in bfloat16, channels last."""
    network = copy.deepcopy(network).eval()
    for part in (network.stem, network.context, network.fusion):
        part.to(torch.bfloat16)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
