"""Local Deep Descriptor Regression, LDDR (Kumar, Ranjan, Patel and Chellappa, "Face Alignment by Local Deep Descriptor Regression"),
in the paper's order. How the network of §3.1 gets its weights, and how cascades are kept, is in `lddr_training`.

Symbols: ``phi`` descriptor of a landmark, ``Phi`` those of all landmarks in a row, ``W`` regression weights, ``S`` shape. Shapes are
(N, L, 2) in pixels of the face crop: (x, y), 0-based, pixel centres at integers. In the regression, lengths are in sides of the face box.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.faces.augment import CORNERS, EnlargedSamples, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.perturbations import Frame, UniformPerturbation, Variant
from replicate.geometry import apply_transform, invert
from replicate.progress import progress_bar
from replicate.regression import Linear, linear, mean_square, ridge, support_vector_regression
from replicate.vocabulary import check_one_of

VERSION = 1  # raise when a change here alters what a training or a fit gives
FACE = 224  # §3.1: side of the face box in pixels
CHANNELS = 256  # §3.1: of conv5, length of a descriptor
MEAN = (123.0, 117.0, 104.0)  # Caffe: mean of ImageNet in red, green, blue; exact in bfloat16
FEATURES = ("deep", "SIFT", "HOG")
WEIGHTS = ("tuned", "objects", "faces", "random", "imagenet", "imagenet tuned")
SOLVERS = ("ridge", "liblinear")
AUGMENTATIONS = ("mirrored and turned", "mirrored, turned and both", "none")
_CHUNK = 32  # faces whose patches are held at a time
_CUT = 256  # training faces whose canvases are held at a time


@dataclass(frozen=True)
class DescriptorConfig:
    """What determines the weights of a descriptor network besides faces and seed."""

    width: float = 1.0  # §3.1: factor on the channels of all layers but conv5
    kinds: int = 1000  # our choice: of fractals; ImageNet has as many classes
    objects: int = 1_000_000  # our choice: pictures of fractals that are seen
    patches: int = 256_000  # our choice: of faces and of what is none; no number is printed
    batch: int = 128  # R-CNN §2.3
    step_size: float = 1e-3  # our choice: Adam's, of the first training
    tuning: float = 0.3  # our choice: factor on the step size of a tuning; R-CNN §2.3 has 0.1
    validation: int = 512  # our choice: pictures that decide which state is kept
    validate_every: int = 50  # our choice


@dataclass(frozen=True)
class LDDRConfig:
    """What determines a cascade besides training faces and seed.

    Raises
    ------
    ReplicateError
        For a word that is none of `FEATURES`, `WEIGHTS`, `SOLVERS` or `AUGMENTATIONS`, or a stage that Table 1 does not have.
    """

    features: str = "deep"  # §3.1; SIFT and HOG take the place of the descriptors in §4.2's comparison
    weights: str = "tuned"  # §3.1: a network that knows objects, tuned on faces
    network: DescriptorConfig = DescriptorConfig()
    stages: tuple[int, ...] = (1, 2, 3, 4)  # Table 1: the row that each stage takes its patches from
    augmentation: str = "mirrored and turned"  # §4.2
    rotation: float = 15.0  # degrees, largest; our choice, by validation
    starts: int = 1  # our choice: initial shapes of each training image; §4.2 prints no number
    penalty: float = 16_000.0  # Eq. 2: lambda in mean squares of a feature; our choice, by validation
    solver: str = "ridge"  # the minimum of Eq. 2; §3.3: "liblinear" goes to the same
    tolerance: float = 1e-3  # our choice: of LIBLINEAR
    crop: int = 320  # our choice: pixels of the face crop, whose middle is the box; beyond it pixels repeat

    def __post_init__(self) -> None:
        for name, words in (
            ("features", FEATURES),
            ("weights", WEIGHTS),
            ("solver", SOLVERS),
            ("augmentation", AUGMENTATIONS),
        ):
            check_one_of(name, getattr(self, name), words)
        if not self.stages or not set(self.stages) <= {1, 2, 3, 4}:
            raise ReplicateError(f"stages: got {self.stages}, expected rows of Table 1, each 1, 2, 3 or 4")

    @property
    def frame(self) -> Frame:
        return Frame(self.crop, FACE, zoom=1.0)

    @property
    def forms(self) -> list["Form"]:
        """How each stage runs its network."""
        return [STAGES[stage - 1] for stage in self.stages]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The images that the training set has of each face."""
        turned = UniformPerturbation(rotation=self.rotation)
        return {
            "none": (Variant(),),
            "mirrored and turned": (Variant(), Variant(turned, mirrored=True)),
            "mirrored, turned and both": (
                Variant(),
                Variant(mirrored=True),
                Variant(turned),
                Variant(turned, mirrored=True),
            ),
        }[self.augmentation]


_SMOKE = DescriptorConfig(
    width=1 / 16, kinds=4, objects=96, patches=96, batch=16, validation=32, validate_every=3
)
_CPU = DescriptorConfig(width=1 / 4, kinds=20, objects=32_000, patches=32_000, batch=64)
CONFIGS = {
    "smoke": LDDRConfig(network=_SMOKE, stages=(3, 4)),
    "cpu": LDDRConfig(network=_CPU),
    "gpu": LDDRConfig(starts=5),
}


# §3.1 Deep descriptor construction ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One way to run the five convolutions of AlexNet: strides and paddings, which leave the weights as they are.

    Attributes
    ----------
    input : int
        Side of the image that it takes, in pixels.
    conv1, max1, conv2, max2 : int
        Strides, Table 1.
    padding : tuple of int
        Of the convolutions.
    pool_padding : int
        Of the max pooling layers. Their output is rounded up, as Caffe does: only so does each row of Table 1 end in one pixel.
    """

    input: int
    conv1: int = 1
    max1: int = 1
    conv2: int = 1
    max2: int = 1
    padding: tuple[int, ...] = (0, 0, 0, 0, 0)
    pool_padding: int = 1

    @property
    def layers(self) -> tuple[tuple[str, int, int, int], ...]:
        """Name, kernel, stride and padding of each layer with an extent."""
        conv, pool = self.padding, self.pool_padding
        return (
            ("conv1", 11, self.conv1, conv[0]),
            ("max1", 3, self.max1, pool),
            ("conv2", 5, self.conv2, conv[1]),
            ("max2", 3, self.max2, pool),
            ("conv3", 3, 1, conv[2]),
            ("conv4", 3, 1, conv[3]),
            ("conv5", 3, 1, conv[4]),
        )

    def sides(self, side: int | None = None) -> dict[str, int]:
        """Side of each layer's output for an input of `side` pixels, `input` unless told otherwise."""
        found, n = {}, side or self.input
        for name, kernel, stride, padding in self.layers:
            steps = n + 2 * padding - kernel
            n = steps // stride + 1
            if name.startswith("max") and steps % stride and n * stride < found[_before(name)] + padding:
                n += 1  # rounded up, unless the last window would start beyond the input and its left padding
            found[name] = n
        return found

    def receptive_field(self, layer: str = "conv5") -> int:
        """Side, in pixels of the input, of what one output of a layer depends on, where no padding cuts it short."""
        field, step = 1, 1
        for name, kernel, stride, _ in self.layers:
            field, step = field + (kernel - 1) * step, step * stride
            if name == layer:
                return field
        raise ReplicateError(f"layer: got {layer!r}, expected one of {', '.join(x[0] for x in self.layers)}")


def _before(pool: str) -> str:
    return pool.replace("max", "conv")


ALEXNET = Form(FACE, 4, 2, 1, 2, padding=(0, 2, 1, 1, 1), pool_padding=0)  # as it is trained
STAGES = (Form(92, 4, 2, 1, 1), Form(68, 3, 2, 1, 1), Form(42, 2, 1, 1, 2), Form(21))  # Table 1


class Descriptor(nn.Module):
    """The convolutions of AlexNet (Krizhevsky et al., 2012), in any `Form`; weights and order of layers are those of Caffe's copy.

    Parameters
    ----------
    width : float
        Factor on the channels of conv1 to conv4; those of conv5 stay.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3 = (2 * round(width * channels / 2) for channels in (96, 256, 384))
        self.conv1 = nn.Conv2d(3, c1, 11)
        self.conv2 = nn.Conv2d(c1, c2, 5, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3)
        self.conv4 = nn.Conv2d(c3, c3, 3, groups=2)
        self.conv5 = nn.Conv2d(c3, CHANNELS, 3, groups=2)
        for layer in self.children():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # our choice: sd 0.01 fades
            nn.init.zeros_(layer.bias)

    def forward(
        self, images: Tensor, form: Form, norms: Sequence[nn.Module] = (nn.Identity(),) * 5
    ) -> Tensor:
        """Activations of conv5, (N, 256, h, w), of `centred` images (N, 3, H, W).

        Parameters
        ----------
        norms : sequence of Module
            What follows each convolution while the network is trained; nothing afterwards.
        """
        conv = zip(self.children(), norms, form.padding, strict=True)
        pool = dict(kernel_size=3, padding=form.pool_padding, ceil_mode=True)
        x = _convolved(images, *next(conv), stride=form.conv1)
        x = normalised(functional.max_pool2d(x, stride=form.max1, **pool))
        x = _convolved(x, *next(conv), stride=form.conv2)
        x = normalised(functional.max_pool2d(x, stride=form.max2, **pool))
        for layer in conv:
            x = _convolved(x, *layer)
        return x


def _convolved(x: Tensor, layer: nn.Conv2d, norm: nn.Module, padding: int, stride: int = 1) -> Tensor:
    """Convolution and ReLU."""
    x = functional.conv2d(x, layer.weight, layer.bias, stride, padding, groups=layer.groups)
    return functional.relu_(norm(x))


def centred(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the network takes, from uint8 images (..., 3) in red, green and blue: differences from the mean colour."""
    return images.to(dtype) - torch.tensor(MEAN, dtype=dtype, device=images.device)


def normalised(x: Tensor, size: int = 5, alpha: float = 1e-4) -> Tensor:
    """Local response normalisation over `size` neighbouring channels, (N, C, H, W); Caffe's constants, k = 1 and alpha / size.

    The sum over neighbours is a product with a banded matrix, which is faster here than the pooling of ``torch.nn.LocalResponseNorm``;
    its power of -0.75 is made of two roots.
    """
    channel = torch.arange(x.shape[1], device=x.device)
    band = ((channel[:, None] - channel).abs() <= size // 2).to(x.dtype) * (alpha / size)
    last = x.movedim(1, -1)
    root = (1 + last.square() @ band).rsqrt()
    return (last * root * root.sqrt()).movedim(-1, 1)


def descriptor_map(network: Descriptor, image: Tensor) -> Tensor:
    """The descriptors of all pixels of an image (3, H, W) at once, (256, H - 20, W - 20): those of its pixels 10 to H - 11.

    Neighbouring patches share what the convolutions find. Pooling sees past the border of a patch here, so that a descriptor depends on
    25 x 25 pixels where that of the patch alone depends on 21 x 21.
    """
    form = replace(STAGES[-1], input=image.shape[-1])
    return network(image[None], form)[0]


# §3.2 Shape-indexed features ----------------------------------------------------------------------------------------------------------


def cut_patches(crops: Tensor, points: Tensor, side: int) -> Tensor:
    """Square patches of `side` pixels around points, (n * L, 3, side, side), from crops (n, S, S, 3) and points (n, L, 2).

    The middle of a patch is as near to its point as whole pixels allow. Beyond the border of a crop its last pixels repeat.
    """
    n, size, _, channels = crops.shape
    padded = functional.pad(crops.movedim(-1, 1), [side] * 4, mode="replicate").movedim(1, -1).contiguous()
    row, last = padded.shape[2] * channels, size + side  # where the last window begins
    shape = (n, last + 1, last + 1, side, side * channels)
    windows = padded.as_strided(shape, (padded.stride(0), row, channels, row, 1))
    corner = (points - (side - 1) / 2).round().clamp(-side, size).long() + side  # (n, L, 2)
    face = torch.arange(n, device=crops.device)[:, None]
    patches = windows[face, corner[..., 1], corner[..., 0]]  # (n, L, side, side * channels)
    return patches.view(-1, side, side, channels).movedim(-1, 1)


# (n, L * D) of crops (n, S, S, 3) uint8 at points (n, L, 2), for the form of a stage
Features = Callable[[Tensor, Tensor, Form], Tensor]


class DeepFeatures:
    """Phi: the deep descriptors of all landmarks in a row, D = 256, computed in bfloat16 unless told otherwise."""

    def __init__(self, network: Descriptor, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network = copy.deepcopy(network).eval().to(dtype=dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, crops: Tensor, points: Tensor, form: Form) -> Tensor:
        patches = cut_patches(centred(crops, self.network.conv1.weight.dtype), points, form.input)
        return self.network(patches, form).view(len(crops), -1)


def sift_features(crops: Tensor, points: Tensor, form: Form) -> Tensor:
    """SIFT in place of the deep descriptors, upright and as large as the patches, D = 128: what [40] has."""
    diameter = form.input / 6  # OpenCV's window is 4 bins of 1.5 diameters
    sift, found = cv2.SIFT_create(), []
    for crop, places in zip(crops.cpu().numpy(), points.tolist(), strict=True):
        keypoints = [cv2.KeyPoint(x, y, diameter, 0) for x, y in places]
        found.append(sift.compute(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), keypoints)[1].astype(np.uint8))
    return torch.from_numpy(np.stack(found)).flatten(1).to(crops.device)


def hog_features(crops: Tensor, points: Tensor, form: Form) -> Tensor:
    """Histograms of oriented gradients of the patches at 32 x 32 pixels, D = 324: the kind of features that [44] has."""
    hog = cv2.HOGDescriptor((32, 32), (16, 16), (8, 8), (8, 8), 9)
    patches = cut_patches(crops, points, form.input).movedim(1, -1).cpu().numpy()
    grey = (cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY) for patch in patches)
    found = [hog.compute(cv2.resize(patch, (32, 32), interpolation=cv2.INTER_AREA)) for patch in grey]
    return torch.from_numpy(np.stack(found)).half().view(len(crops), -1).to(crops.device)


HAND_CRAFTED: dict[str, Features] = {"SIFT": sift_features, "HOG": hog_features}


# §3.3 Learning global regression W^t --------------------------------------------------------------------------------------------------


class LDDR:
    """A cascade of linear regressions from the features of the current shape to what it lacks to the true one: Eq. 1.

    Parameters
    ----------
    config : LDDRConfig
    features : callable
        See `Features`.

    Attributes
    ----------
    initial_ : Tensor
        (L, 2) mean shape S^0 of the training faces, in box sides from the middle of the box.
    examples_ : Tensor
        (E, L, 2) some of the training shapes, as other places to start from.
    weights_ : list of Tensor
        W^t of each stage, (L * D, L * 2), transposed, from features to steps in box sides.
    penalties_ : list of float
        Lambda of each stage, absolute.
    """

    examples = 24

    def __init__(self, config: LDDRConfig, features: Features) -> None:
        self.config, self.features = config, features

    def fit(self, faces: FaceSet, seed: int = 0, device: torch.device | str = "cpu") -> "LDDR":
        """Learn the cascade, stage by stage: Eq. 2.

        Parameters
        ----------
        faces : FaceSet
            Training faces; every point must be known.
        seed : int
            Of the turns and of the initial shapes.

        Raises
        ------
        ReplicateError
            If a point is missing, or there are fewer than two faces.
        """
        config, count = self.config, len(faces)
        if count < 2 or not np.isfinite(faces.points).all():
            raise ReplicateError(
                f"faces: got {count} with {(~np.isfinite(faces.points)).any((1, 2)).sum()} that lack a point; expected at least two faces "
                "with all points known"
            )
        crops, truth = training_crops(faces, config, seed, device)  # (V * N, S, S, 3), (V * N, L, 2)
        generator = torch.Generator().manual_seed(seed)
        self.initial_ = truth[:count].mean(0)
        self.examples_ = truth[torch.randperm(count, generator=generator)[: self.examples]]
        shapes = _others(truth, count, config.starts, generator)  # (V * N, P, L, 2)
        self.weights_, self.penalties_ = [], []
        with progress_bar() as progress:
            bar = progress.add_task("LDDR stages", total=len(config.stages), remark="")
            for form in config.forms:
                features = self._features(crops, shapes, form)  # (V * N * P, L * D)
                missing = (truth[:, None] - shapes).flatten(0, 1).flatten(1)
                fitted = self._regression(features, missing)
                shapes += linear(features, fitted).view(shapes.shape)
                self.weights_.append(fitted.weights)
                self.penalties_.append(fitted.penalty)
                progress.advance(bar)
        return self

    def _regression(self, features: Tensor, missing: Tensor) -> Linear:
        """Eq. 2, without a constant as Eq. 1 has none."""
        penalty = self.config.penalty * mean_square(features)
        if self.config.solver == "ridge":
            return ridge(features, missing, penalty, bias=False)
        return support_vector_regression(features, missing, penalty, tolerance=self.config.tolerance)

    def _features(self, crops: Tensor, shapes: Tensor, form: Form) -> Tensor:
        """Phi of all shapes (n, P, L, 2) in box sides on their crops: (n * P, L * D)."""
        points = self._to_crop(shapes).flatten(1, 2)
        parts = zip(crops.split(_CHUNK), points.split(_CHUNK), strict=True)
        found = [self.features(crop, places, form) for crop, places in parts]
        return torch.cat(found).view(len(crops) * shapes.shape[1], -1)

    def _to_crop(self, shapes: Tensor) -> Tensor:
        """Shapes in box sides from the middle of the box as pixels of the crop."""
        return shapes * FACE + (self.config.crop - 1) / 2

    def predict(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, starts: Tensor | None = None
    ) -> Tensor:
        """Shapes before the first and after each stage, (T + 1, P, N, L, 2) float32 in pixels of the images.

        Parameters
        ----------
        images : sequence of uint8 arrays
            N photographs, grey or RGB.
        boxes : array
            (N, 4).
        starts : Tensor, optional
            (P, L, 2) shapes to start from, in box sides; the mean shape alone unless told otherwise.
        """
        device = self.initial_.device
        starts = self.initial_[None] if starts is None else starts.to(device)
        found = []
        for index in np.array_split(np.arange(len(boxes)), -(-len(boxes) // _CHUNK)):
            canvases = cut_canvases(
                [images[i] for i in index], boxes[index], CORNERS, self.config.frame, colour=True
            )
            crops = as_bytes(canvases.to(device).crops(torch.arange(len(index), device=device)))
            shapes = [starts.expand(len(index), *starts.shape)]
            for form, weights in zip(self.config.forms, self.weights_, strict=True):
                step = self._features(crops, shapes[-1], form).float() @ weights
                shapes.append(shapes[-1] + step.view(shapes[-1].shape))
            to_image = invert(canvases.from_image)[:, None]
            found.append(torch.stack([apply_transform(to_image, self._to_crop(s).cpu()) for s in shapes]))
        return torch.cat(found, 1).transpose(1, 2)

    def tensors(self, rank: int | None = None) -> dict[str, Tensor]:
        """Everything that was learnt.

        Parameters
        ----------
        rank : int, optional
            Keep the regression weights as products of two narrow matrices, the nearest of this rank. The models that travel with the
            repository are kept so: in a fifth of the space, landmarks move by less than a hundredth of the face.
        """
        found = {
            "initial": self.initial_,
            "examples": self.examples_,
            "penalties": torch.tensor(self.penalties_),
        }
        for number, weights in enumerate(self.weights_):
            if rank is None:
                found[f"weights.{number}"] = weights
            else:
                left, values, right = torch.linalg.svd(weights, full_matrices=False)
                found[f"left.{number}"] = left[:, :rank] * values[:rank]
                found[f"right.{number}"] = right[:rank].contiguous()
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> "LDDR":
        """Take over what a cascade of the same configuration has learnt, from its `tensors`."""
        self.initial_, self.examples_ = tensors["initial"], tensors["examples"]
        self.penalties_ = tensors["penalties"].tolist()
        self.weights_ = [
            tensors[f"weights.{number}"]
            if f"weights.{number}" in tensors
            else tensors[f"left.{number}"] @ tensors[f"right.{number}"]
            for number in range(len(self.config.stages))
        ]
        return self


def training_crops(
    faces: FaceSet, config: LDDRConfig, seed: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The enlarged training set of N faces in V variants: crops (V * N, S, S, 3) uint8 and shapes (V * N, L, 2) in box sides; §4.2.

    Image number ``variant * N + face`` shows a variant of a face.
    """
    count, variants = len(faces), len(config.variants)
    crops = torch.empty(variants, count, config.crop, config.crop, 3, dtype=torch.uint8, device=device)
    points = torch.empty(variants, count, *faces.points.shape[1:], device=device)
    for number, index in enumerate(np.array_split(np.arange(count), -(-count // _CUT))):
        part, seeds = faces.subset(index), 1_000 * seed + number
        samples = EnlargedSamples(
            part, CORNERS, config.frame, config.variants, 1, seeds, device, boxes=part.boxes, colour=True
        )
        for positions in torch.arange(len(samples)).split(_CHUNK):
            pixels, shapes = samples.take(positions)
            place = positions // len(index), int(index[0]) + positions % len(index)
            crops[place], points[place] = as_bytes(pixels), shapes
    return crops.flatten(0, 1), ((points - (config.crop - 1) / 2) / FACE).flatten(0, 1)


def as_bytes(crops: Tensor) -> Tensor:
    """Crops (n, 3, S, S) in [0, 1] as (n, S, S, 3) uint8."""
    return (255 * crops).round_().to(torch.uint8).movedim(1, -1).contiguous()


def _others(shapes: Tensor, faces: int, copies: int, generator: torch.Generator) -> Tensor:
    """Initial shapes of training images, (n, copies, L, 2): shapes of other faces, upright and as they lie in their boxes. §4.2.

    Parameters
    ----------
    shapes : Tensor
        (n, L, 2): number ``variant * faces + face``, the plain variant first.
    """
    step = torch.randint(1, faces, (len(shapes), copies), generator=generator)
    other = (torch.arange(len(shapes))[:, None] + step) % faces
    return shapes[other.to(shapes.device)]


# §3.4 Incorporating shape constraint --------------------------------------------------------------------------------------------------


def outside_span(shapes: Tensor, training: Tensor) -> Tensor:
    """How far steps (n, L, 2) lie outside the span of training steps (m, L, 2): (n,), as shares of their length. Eq. 3.

    Steps are differences of shapes from the one that they start from. With fewer training shapes than coordinates there is such a span.
    """
    basis = torch.linalg.svd(training.flatten(1).double(), full_matrices=False)
    kept = basis.Vh[basis.S[0] * 1e-6 < basis.S]
    steps = shapes.flatten(1).double()
    return (steps - steps @ kept.T @ kept).norm(dim=1) / steps.norm(dim=1).clamp_min(1e-12)
