"""Deep recurrent regression, RNN (Lai, Xiao, Pan, Cui, Feng, Xu, Yin and Yan, "Deep Recurrent Regression for Facial Landmark Detection"):
the networks and the prediction, §III, in the paper's order. Training is in `rnn_training`.

Symbols: ``A`` the maps of conv8, ``Q`` what they should be, ``F`` shape-indexed features, ``F~`` recurrent ones, ``S`` shapes. Shapes are
(N, L, 2) in pixels of the network's input: (x, y), 0-based, pixel centres at integers.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.faces.perturbations import Frame
from replicate.training import Schedule
from replicate.vocabulary import check_one_of

VERSION = 2  # raise when a change here alters what a training gives
FEATURES_VERSION = 1  # the same of the first training, see `rnn_training.steps`
BACKBONES = ("VGG-19", "VGG-S")
GATES = ("full", "low rank", "per landmark")
MAPS = ("conv5", "deconv6", "deconv7")
STRIDES = {"conv5": 4, "deconv6": 2, "deconv7": 1}  # input pixels for each cell of a map, along an axis
TRAININGS = ("end to end", "two stages")
_COUNTS = (  # fields of the configuration that count something
    "nominal", "rank", "steps", "candidates", "batch", "pretraining", "samples", "validation_faces", "validate_every", "patience",
)  # fmt: skip
PADDING = 0.2  # §IV-B: on all sides of the box, in its widths
NOMINAL = (128, 256)  # Table VIII: sizes of the input


@dataclass(frozen=True)
class RNNConfig:
    """What determines a network besides training faces and seed. Lengths are in pixels of the paper's input.

    Raises
    ------
    ReplicateError
        For a word that is none of `BACKBONES`, `GATES`, `MAPS` or `TRAININGS`, no map or one twice, a number out of its range, or an input
        whose side the layers cannot halve twice.
    """

    backbone: str = "VGG-19"  # §III-A, Fig. 2; "VGG-S": Table VII
    width: float = 1.0  # factor on the channels of every layer but conv8
    nominal: int = 256  # §IV-B: side of the input
    scale: float = 1.0  # our choice: pixels of this input for each pixel of the paper's
    pooled: tuple[str, ...] = ("deconv7",)  # §III-C; others: Table XIV
    recurrent: bool = True  # Fig. 7B; without: Fig. 7A
    gates: str = "low rank"  # our choice: in place of a full matrix of 341 million weights
    rank: int = 128  # our choice
    steps: int = 8  # §IV-B: K
    box: float = 6.0  # §IV-B: b
    candidates: int = 50  # §IV-B: N
    training: str = "end to end"  # §III-D; "two stages": Fig. 10
    weight: float = 0.3  # our choice, by validation: of the regression losses, in units of `STEP`, beside the softmax loss
    batch: int = 16  # our choice, as the rest: the paper prints no schedule
    step_size: float = 1e-3  # Adam's
    pretraining: int = 1_000_000  # samples for the initialization network alone, in place of ImageNet's
    samples: int = 1_000_000
    validation_faces: int = 100
    validate_every: int = 200
    patience: int = 1000  # validations; the step size falls to zero over the budget, which ends the training
    sanity_gate: bool = True  # stop a network that is no better than the mean shape

    def __post_init__(self) -> None:
        check_one_of("backbone", self.backbone, BACKBONES)
        check_one_of("gates", self.gates, GATES)
        check_one_of("training", self.training, TRAININGS)
        for name in self.pooled:
            check_one_of("pooled", name, MAPS)
        for name in _COUNTS:
            if getattr(self, name) < 1 or getattr(self, name) != int(getattr(self, name)):
                raise ReplicateError(
                    f"{name}: got {getattr(self, name)}, expected a whole number, one or more"
                )
        for name in ("width", "scale", "step_size"):
            if not getattr(self, name) > 0:
                raise ReplicateError(f"{name}: got {getattr(self, name)}, expected more than zero")
        for name in ("box", "weight"):
            if not getattr(self, name) >= 0:
                raise ReplicateError(f"{name}: got {getattr(self, name)}, expected zero or more")
        if not self.pooled or len(set(self.pooled)) < len(self.pooled):
            raise ReplicateError(f"pooled: got {self.pooled}, expected some of {', '.join(MAPS)}, each once")
        if self.size < STRIDES["conv5"] or self.size % STRIDES["conv5"]:
            raise ReplicateError(
                f"nominal and scale: got an input of {self.size} pixels, expected a multiple of {STRIDES['conv5']}, which maps of all layers cover"
            )

    @property
    def size(self) -> int:
        """Pixels of the input along a side."""
        return round(self.nominal * self.scale)

    @property
    def frame(self) -> Frame:
        """§IV-B: the longer side of the box and the padding on both sides of it fill the input."""
        return Frame(self.size, self.size / (1 + 2 * PADDING), zoom=1.0)

    def radius(self, name: str) -> int:
        """Cells of a map on each side of the middle of a box of `SIP`, b / 2 rounded down; none where a cell is wider."""
        return int(self.box * self.scale / 2 / STRIDES[name])

    def schedule(self) -> Schedule:
        """Schedule of the training."""
        return Schedule(self.batch, self.step_size, self.samples, True, self.validate_every, self.patience)


# `cpu` has half of the pixels along a side and a quarter of the channels, `smoke` next to nothing.
_SMOKE = RNNConfig(
    "VGG-S", width=1 / 16, scale=1 / 4, rank=8, pretraining=80, samples=80, batch=8, validation_faces=8, validate_every=10, sanity_gate=False,
)  # fmt: skip
_CPU = RNNConfig("VGG-S", width=1 / 4, scale=1 / 2, pretraining=24_000, samples=12_000)
CONFIGS = {"smoke": _SMOKE, "cpu": _CPU, "gpu": RNNConfig()}


def sized(profile: str) -> dict[str, RNNConfig]:
    """The four networks of Table VIII, ``"VGG-S 128"`` to ``"VGG-19 256"``, at the scale and the budget of a profile."""
    return {
        f"{backbone} {nominal}": replace(CONFIGS[profile], backbone=backbone, nominal=nominal)
        for backbone in reversed(BACKBONES)
        for nominal in NOMINAL
    }


# §III-A Spatial resolution-preserved conv-deconv network ---------------------------------------------------------------------------------

# Kernel, channels and number of the convolutions of each block; after the first two blocks the maps are halved. Fig. 2, Table VII.
BLOCKS = {
    "VGG-19": ((3, 64, 2), (3, 128, 2), (3, 256, 4), (3, 512, 4), (3, 512, 4)),
    "VGG-S": ((7, 96, 1), (5, 256, 1), (3, 512, 1), (3, 512, 1), (3, 512, 1)),
}
POOLED_BLOCKS = 2
DECONVOLVED = 96  # §III-A: kernels of each deconvolution, 4 x 4 with a stride of 2


class ConvDeconv(nn.Module):
    """Convolutions, two of their blocks followed by max pooling, and two deconvolutions that undo it."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        channels, self.blocks = 3, nn.ModuleList()
        for kernel, out, count in BLOCKS[config.backbone]:
            layers = []
            for _ in range(count):
                layers += [
                    _initialised(nn.Conv2d(channels, round(config.width * out), kernel, padding=kernel // 2)),
                    nn.ReLU(inplace=True),
                ]
                channels = round(config.width * out)
            self.blocks.append(nn.Sequential(*layers))
        out = round(config.width * DECONVOLVED)
        self.deconv6 = _initialised(nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1))
        self.deconv7 = _initialised(nn.ConvTranspose2d(out, out, 4, stride=2, padding=1))
        self.channels = {"conv5": channels, "deconv6": out, "deconv7": out}

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """`MAPS` (N, C, H / stride, W / stride) of RGB crops (N, 3, H, W) in [0, 1]."""
        x = ((crops - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number < POOLED_BLOCKS:
                x = functional.max_pool2d(x, 2)
        deconv6 = functional.relu(self.deconv6(x))
        return {"conv5": x, "deconv6": deconv6, "deconv7": functional.relu(self.deconv7(deconv6))}


def _initialised(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """With weights that keep the variance of what passes, in place of those of ImageNet."""
    inputs = layer.in_channels * layer.kernel_size[0] ** 2
    if isinstance(layer, nn.ConvTranspose2d):
        inputs //= layer.stride[0] ** 2  # of which an output pixel sees
    nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer


# §III-B Initialization network -----------------------------------------------------------------------------------------------------------

REACH = 24  # pixels, beyond which Q is below a sixteen-millionth of its largest value and left out


def probabilities(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Q around each landmark: §III-B, ``0.5 ** max(|x - j|, |y - k|)``, normalised to a sum of 1.

    Parameters
    ----------
    points : Tensor
        (N, L, 2); a point beyond the input counts as on its border.

    Returns
    -------
    places : Tensor
        (N, L, P) pixels up to `REACH` away, numbered row by row.
    values : Tensor
        (N, L, P); zero for pixels beyond the border.
    """
    points = points.clamp(0, size - 1)
    axis = torch.arange(-REACH, REACH + 1, device=points.device)
    pixels = points.round().long()[..., None] + axis  # (N, L, 2, 2 * REACH + 1)
    distance = (pixels - points[..., None]).abs()
    inside = (pixels >= 0) & (pixels < size)
    (x, y), (right, below), (across, down) = (
        part.unbind(2) for part in (pixels.clamp(0, size - 1), inside, distance)
    )
    values = 0.5 ** torch.maximum(down[..., :, None], across[..., None, :])
    values = values * (below[..., :, None] & right[..., None, :])
    places = size * y[..., :, None] + x[..., None, :]
    values = values.flatten(2)
    return places.flatten(2), values / values.sum(-1, keepdim=True)


def mapping_loss(maps: Tensor, points: Tensor) -> Tensor:
    """Softmax loss of the local mapping functions, Eq. 9 and 14, as the mean over faces and landmarks.

    Parameters
    ----------
    maps : Tensor
        A (N, L, size, size).
    points : Tensor
        (N, L, 2).
    """
    places, wanted = probabilities(points, maps.shape[-1])
    flat = maps.flatten(2)
    return (flat.logsumexp(-1) - (wanted * flat.gather(2, places)).sum(-1)).mean()


class MappingLoss(torch.autograd.Function):
    """conv8, its peaks and `mapping_loss` in one pass over each face: the maps A, more than twenty times the face, are never held for a batch."""

    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor, bias: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the peaks (N, L, 2), of deconv7 (N, C, size, size), with weights (L, C) and (L,) of conv8."""
        count, channels, size, _ = maps.shape
        rows = maps.permute(0, 2, 3, 1).reshape(count, -1, channels)
        places, wanted = probabilities(points, size)
        found, total = torch.empty_like(points), maps.new_zeros((), dtype=weight.dtype)
        to_rows, to_weight, to_bias = torch.empty_like(rows), torch.zeros_like(weight), torch.zeros_like(bias)
        for number, one in enumerate(rows):
            one = one.to(weight.dtype)
            a = torch.addmm(bias[:, None], weight, one.T)  # (L, size * size)
            found[number] = peaks(a.view(1, -1, size, size))[0]
            logarithm = a.logsumexp(1, keepdim=True)
            total += logarithm.sum() - (wanted[number] * a.gather(1, places[number])).sum()
            excess = a.sub_(logarithm).exp_().scatter_add_(1, places[number], -wanted[number])  # A^ - Q
            to_rows[number] = excess.T @ weight
            to_weight.addmm_(excess, one)
            to_bias += excess.sum(1)
        ctx.save_for_backward(to_rows, to_weight, to_bias)
        ctx.form, ctx.entries = maps.shape, points[..., 0].numel()
        ctx.mark_non_differentiable(found)
        return total / ctx.entries, found

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        to_rows, to_weight, to_bias = (part * (gradient / ctx.entries) for part in ctx.saved_tensors)
        count, channels, height, width = ctx.form
        return to_rows.view(count, height, width, channels).permute(0, 3, 1, 2), to_weight, to_bias, None


def peaks(maps: Tensor) -> Tensor:
    """The predicted shape S (N, L, 2): the place of the largest value of each map (N, L, H, W)."""
    place = maps.flatten(2).argmax(-1)
    return torch.stack([place % maps.shape[-1], place // maps.shape[-1]], -1).float()


def nearest(shapes: Tensor, candidates: Tensor) -> Tensor:
    """Initialization searching, Eq. 10: for each shape (N, L, 2) the nearest of M candidates (M, L, 2)."""
    return candidates[torch.cdist(shapes.flatten(1), candidates.flatten(1)).argmin(1)]


# §III-C Deep shape-indexed features --------------------------------------------------------------------------------------------------------


class Pooled:
    """A feature map that several steps pool from.

    What their gradients add to it is collected in place; a map of the size of the image for every step would cost more than the pooling.

    Attributes
    ----------
    maps : Tensor
        (N, C, H, W), the same values; gradients that reach it, or come from `at`, reach the maps it was made of.
    """

    def __init__(self, maps: Tensor) -> None:
        self._gradient = _Gradient(maps.shape)
        self.maps, self._order = _Collected.apply(maps, self._gradient)
        self._rows = self.maps.detach().permute(0, 2, 3, 1).reshape(-1, maps.shape[1])

    def at(self, points: Tensor, radius: int) -> Tensor:
        """SIP, Fig. 5: the largest value (N, L, C) of each channel in the square that reaches `radius` cells from the cell next to a landmark.

        Its gradient goes to the places of these values, and none to the landmarks.

        Parameters
        ----------
        points : Tensor
            (N, L, 2), in cells.
        """
        count, _, height, width = self.maps.shape
        axis = torch.arange(-radius, radius + 1, device=points.device)
        x, y = points.detach().round().long().unbind(-1)
        x, y = (x[..., None] + axis).clamp(0, width - 1), (y[..., None] + axis).clamp(0, height - 1)
        first = height * width * torch.arange(count, device=points.device)[:, None, None, None]
        places = (first + width * y[..., :, None] + x[..., None, :]).flatten(2)  # (N, L, P)
        return _SIP.apply(self._order, self._rows, places, self._gradient)


class _Gradient:
    """What has been collected for a map; it knows no tensor of the graph, which would never be freed then."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape, self.values = shape, None

    def add(self, entries: Tensor, values: Tensor) -> None:
        """Add values to entries of the map as (N * H * W * C,)."""
        if self.values is None:
            self.values = values.new_zeros(self.shape.numel())
        self.values.index_put_((entries.flatten(),), values.flatten(), accumulate=True)

    def take(self) -> Tensor | None:
        """What has been collected, as (N, C, H, W)."""
        if self.values is None:
            return None
        count, channels, height, width = self.shape
        values, self.values = self.values, None
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)


class _Collected(torch.autograd.Function):
    """Maps as they are, with a number that every pooling takes, so that what they collect is complete before it is added."""

    @staticmethod
    def forward(ctx, maps: Tensor, gradient: _Gradient) -> tuple[Tensor, Tensor]:
        ctx.gradient = gradient
        ctx.set_materialize_grads(False)
        return maps.view_as(maps), torch.zeros((), device=maps.device)

    @staticmethod
    def backward(ctx, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None]:
        collected = ctx.gradient.take()
        if collected is None or gradient is None:
            return gradient if collected is None else collected, None
        return collected.add_(gradient), None


class _SIP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, order: Tensor, rows: Tensor, places: Tensor, gradient: _Gradient) -> Tensor:
        found, which = rows[places].max(2)
        ctx.save_for_backward(places.gather(2, which))
        ctx.gradient, ctx.dtype = gradient, rows.dtype
        return found

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        [places] = ctx.saved_tensors
        channels = gradient.shape[-1]
        entries = places * channels + torch.arange(channels, device=places.device)
        ctx.gradient.add(entries, gradient.to(ctx.dtype))
        return torch.zeros((), device=places.device), None, None, None


def shape_indexed(maps: Mapping[str, Pooled], shapes: Tensor, config: RNNConfig) -> Tensor:
    """F (N, L, C) around shapes (N, L, 2): of all maps that are pooled, one after the other."""
    return torch.cat(
        [maps[name].at((shapes + 0.5) / STRIDES[name] - 0.5, config.radius(name)) for name in config.pooled],
        -1,
    )


# §III-C Recurrent shape features -----------------------------------------------------------------------------------------------------------


class LSTM(nn.Module):
    """Recurrent shape features, Eq. 11: the cell's output has no tanh. All four gates are one product.

    Weights begin with a variance of one, and what they multiply is divided by the root of its length, so that products do not depend on
    the length. Weights of Eq. 11 could contain the division; but steps of Adam are as long for each of thousands of weights, and without it
    the first few of them would drive all gates to their ends, where they stay.

    Parameters
    ----------
    points, channels : int
        L and C of the features (N, L, C).
    gates : str
        What stands for the matrices of Eq. 11. ``"full"``: matrices of 2 LC by LC, as printed. ``"low rank"``: a product of a matrix of 2 LC by
        `rank`, which all gates share, and one of `rank` by LC for each. ``"per landmark"``: for each landmark a matrix of 2 C by C, so that no
        landmark sees another.
    """

    def __init__(self, points: int, channels: int, gates: str, rank: int) -> None:
        super().__init__()
        self.gates, size = gates, points * channels
        if gates == "full":
            self.matrix = nn.Linear(2 * size, 4 * size)
        elif gates == "low rank":
            self.reduced = nn.Linear(2 * size, rank, bias=False)
            self.matrix = nn.Linear(rank, 4 * size)
        else:
            self.weight = nn.Parameter(torch.empty(points, 2 * channels, 4 * channels))
            self.bias = nn.Parameter(torch.empty(points, 1, 4 * channels))
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter)

    def forward(self, features: Tensor, before: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """F~^k and C^k from F^k, F~^(k-1) and C^(k-1), all (N, L, C)."""
        if self.gates == "per landmark":
            both = _shared(torch.cat([features, before], -1)).transpose(0, 1)
            products = torch.baddbmm(self.bias, both, self.weight).transpose(0, 1).chunk(4, -1)
        else:
            both = _shared(torch.cat([features.flatten(1), before.flatten(1)], 1))
            both = both if self.gates == "full" else _shared(self.reduced(both))
            products = [part.view_as(features) for part in self.matrix(both).chunk(4, -1)]
        kept, forgotten, shown = (part.sigmoid() for part in products[:3])
        cell = forgotten * cell + kept * products[3].tanh()
        return shown * cell, cell


def _shared(inputs: Tensor) -> Tensor:
    """Inputs of a product, divided by the root of their number."""
    return inputs / inputs.shape[-1] ** 0.5


# The whole: Fig. 1 -------------------------------------------------------------------------------------------------------------------------

STEP = 1 / 32  # our choice: unit of shapes in the loss, in sides of the input
CHANGE = (
    STEP / 4
)  # our choice, by validation: unit of what regressors say, lest Adam's first steps throw shapes about


class RNN(nn.Module):
    """Conv-deconv network, initialization network and recurrent regression, with the mean shape and the candidates that it starts from.

    Parameters
    ----------
    config : RNNConfig
    candidates : Tensor
        (M, L, 2).
    mean : Tensor
        (L, 2) mean shape.
    """

    def __init__(self, config: RNNConfig, candidates: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.config, points = config, mean.shape[0]
        self.features = ConvDeconv(config)
        self.conv8 = nn.Conv2d(self.features.channels["deconv7"], points, 1)
        nn.init.normal_(self.conv8.weight, std=0.01)
        nn.init.zeros_(self.conv8.bias)
        channels = sum(self.features.channels[name] for name in config.pooled)
        self.lstm = LSTM(points, channels, config.gates, config.rank) if config.recurrent else None
        self.regressors = nn.ModuleList(nn.Linear(points * channels, 2 * points) for _ in range(config.steps))
        for layer in self.regressors:
            nn.init.normal_(layer.weight, std=1e-3)  # so that shapes stay where they are at first
            nn.init.zeros_(layer.bias)
        self.register_buffer("pooled_mean", torch.zeros(channels))
        self.register_buffer("pooled_deviation", torch.ones(channels))
        self.register_buffer("candidates", candidates)
        self.register_buffer("mean", mean)

    def maps(self, crops: Tensor) -> dict[str, Tensor]:
        """`MAPS` of crops (N, 3, size, size) in [0, 1]."""
        with torch.autocast(crops.device.type, torch.bfloat16):
            return self.features(crops)

    def responses(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The maps A (N, L, size, size) of conv8, in full precision: bfloat16 has too few digits to tell a peak from its neighbours."""
        return self.conv8(maps["deconv7"].to(self.conv8.weight.dtype)).contiguous()

    def mapping_loss(self, maps: Mapping[str, Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """`mapping_loss` of the responses, and their peaks (N, L, 2)."""
        return MappingLoss.apply(maps["deconv7"], self.conv8.weight.flatten(1), self.conv8.bias, points)

    def peaks(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The places (N, L, 2) of the largest responses, face by face: those of many are never held at once."""
        return torch.cat([peaks(self.responses({"deconv7": one[None]})) for one in maps["deconv7"]])

    def start(self, peaks: Tensor) -> Tensor:
        """S^0 (N, L, 2): the candidate that is nearest to the peaks (N, L, 2) of conv8."""
        return nearest(peaks, self.candidates)

    def indexed(self, maps: Mapping[str, Pooled], shapes: Tensor) -> Tensor:
        """F (N, L, C) in the units in which the recurrent features are added to it, see `standardise`."""
        return (shape_indexed(maps, shapes, self.config) - self.pooled_mean) / self.pooled_deviation

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Let F have a mean of 0 and a standard deviation of 1 in each channel where it is as `features` (..., C).

        Our choice: as they are pooled, features are all positive and far larger than recurrent features can be.
        """
        deviation, mean = torch.std_mean(features.float().flatten(0, -2), 0)
        self.pooled_mean.copy_(mean)
        self.pooled_deviation.copy_(
            deviation.clamp_min(float(deviation.mean()) / 10 or 1.0)
        )  # channels may be dead

    def refine(self, maps: Mapping[str, Pooled], start: Tensor) -> list[Tensor]:
        """Eq. 7 to 13: S^0 to S^K, each (N, L, 2). A step sees the shape before it as given: no gradient passes from step to step but through F~."""
        shapes, state = [start], None
        for number, regressor in enumerate(self.regressors, start=1):
            before = shapes[-1].detach()
            with torch.autocast(start.device.type, torch.bfloat16):
                features = self.indexed(maps, before)
                if self.lstm is None:
                    seen = features
                else:
                    state = self.lstm(features, *(state or 2 * [torch.zeros_like(features)]))
                    seen = features + state[0]
                change = regressor(seen.flatten(1)).float()
            # Adam's steps are as long where there is little left to learn, and would drown late changes in noise
            shapes.append(before + CHANGE / number * self.config.size * change.view_as(start))
        return shapes


def loss(network: RNN, crops: Tensor, points: Tensor) -> Tensor:
    """§III-D: the softmax loss and, with their `weight`, the K regression losses: Eq. 14 and 16, means over faces and landmarks."""
    pooled = {name: Pooled(one) for name, one in network.maps(crops).items()}
    softmax, peaks = network.mapping_loss({name: one.maps for name, one in pooled.items()}, points)
    shapes = network.refine(pooled, network.start(peaks))
    return softmax + network.config.weight * regression_loss(shapes, points, network.config)


def regression_loss(shapes: Sequence[Tensor], points: Tensor, config: RNNConfig) -> Tensor:
    """Eq. 16 of all steps together, of S^0 to S^K, as the mean over faces and landmarks in units of `STEP`."""
    unit = STEP * config.size
    return sum(((shape - points) / unit).square().sum(-1).mean() for shape in shapes[1:])


# Inference ---------------------------------------------------------------------------------------------------------------------------------


def for_inference(network: RNN) -> RNN:
    """A copy that computes the same faster: convolutions kept in bfloat16, channels last."""
    network = copy.deepcopy(network).eval()
    network.features.to(torch.bfloat16)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
