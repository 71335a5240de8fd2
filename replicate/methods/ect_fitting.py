"""Correction and tuning of ECT (Zhang, Li, Sun and Liu, "Combining Data-Driven and Model-Driven Methods for Robust Facial Landmark
Detection"): the point distribution model of §III-A, §III-C, §III-D, and the methods of Table VIII. Estimation is in `ect`.

Symbols: ``s`` shape, ``s_bar`` mean shape, ``Phi`` shape components with eigenvalues ``Lambda``, ``S`` similarity bases beside ``Phi``, ``p``
parameters of the point distribution model (PDM), ``pi_y`` response at pixel y, ``w_i`` confidence of landmark i, ``v_i`` its mean-shift vector.
Coordinates are those of `ect`. All faces and landmarks of a batch are computed at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from replicate.errors import ReplicateError
from replicate.faces.augment import Canvases
from replicate.faces.perturbations import Frame
from replicate.geometry import apply_transform, fit_similarity, invert, procrustes_align
from replicate.methods.ect import CONFIDENCES, FCN, ECTConfig, for_inference, target_maps, upsampled
from replicate.shapes import mean_shape
from replicate.vocabulary import check_one_of

# §III-A Point distribution model --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PDM:
    """Point distribution model, Eqs 1, 2 and 13, in pixels of a frame.

    Attributes
    ----------
    mean : Tensor
        (L, 2), s_bar.
    components : Tensor
        (L, 2, M), orthonormal, orthogonal to `similarity`, by falling eigenvalue: all that the training shapes give.
    eigenvalues : Tensor
        (M,), in squared pixels.
    active : int
        m, components in use.
    """

    mean: Tensor
    components: Tensor
    eigenvalues: Tensor
    active: int

    @classmethod
    def fit(cls, shapes: Tensor, frame: Frame, components: int) -> "PDM":
        """Learn the model from training shapes (N, L, 2) in any pixels, all points known; at most N - 1 components come of it.

        Raises
        ------
        ReplicateError
            If a point is unknown, or there are fewer than two shapes.
        """
        if len(shapes) < 2 or shapes.isnan().any():
            raise ReplicateError(
                f"shapes: got {len(shapes)} with {int(shapes.isnan().any(-1).sum())} unknown points; expected two or more without; "
                "leave out faces with points that are not annotated (hidden points may stay)"
            )
        shapes = shapes.double()
        aligned = procrustes_align(shapes, frame.canonical(mean_shape(shapes)))
        mean = aligned.mean(0)
        similarity = similarity_bases(mean)
        deviations = (aligned - mean).flatten(1)  # (N, 2L)
        deviations -= deviations @ similarity.flatten(0, 1) @ similarity.flatten(0, 1).T
        _, singular, phi = torch.linalg.svd(deviations, full_matrices=False)
        eigenvalues = singular.square() / (len(shapes) - 1)
        kept = int((eigenvalues > 1e-12 * eigenvalues[0]).sum())
        phi = phi[:kept].T.unflatten(0, mean.shape)
        parts = (mean, phi, eigenvalues[:kept])
        return cls(*(part.float().contiguous() for part in parts), min(components, kept))

    def using(self, components: int) -> "PDM":
        """The same model with another number of components in use, at most all."""
        return replace(self, active=min(components, len(self.eigenvalues)))

    def to(self, device: torch.device | str) -> "PDM":
        """The same model on another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What was learnt, for the model store: with `active`, the arguments that make the model again."""
        return {"mean": self.mean, "components": self.components, "eigenvalues": self.eigenvalues}

    @cached_property
    def similarity(self) -> Tensor:
        """(L, 2, 4), orthonormal: scale, rotation and the two translations."""
        return similarity_bases(self.mean)

    @property
    def retained(self) -> Tensor:
        """(M,): share of the variance that the first components hold together."""
        return self.eigenvalues.cumsum(0) / self.eigenvalues.sum()

    @cached_property
    def bases(self) -> Tensor:
        """(L, 2, 4 + m), S of Eq. 13, which is also the Jacobian J of Eq. 8."""
        return torch.cat([self.similarity, self.components[..., : self.active]], -1)

    @cached_property
    def precision(self) -> Tensor:
        """(4 + m,), the diagonal of the pseudo-inverse of Lambda-tilde, Eq. 8: similarities have no prior."""
        return torch.cat([self.eigenvalues.new_zeros(4), 1 / self.eigenvalues[: self.active]])

    @cached_property
    def products(self) -> Tensor:
        """(L, (4 + m)^2): of each landmark, the products of its bases, whose weighted sum over landmarks is S^T W S."""
        return torch.einsum("ldj,ldk->ljk", self.bases, self.bases).flatten(1)

    @property
    def noise(self) -> float:
        """Mean variance of the components that are not in use, in squared pixels; 0 if there are none."""
        unused = self.eigenvalues[self.active :]
        return unused.mean().item() if len(unused) else 0.0

    def shape(self, p: Tensor) -> Tensor:
        """Eq. 13: s = s_bar + S p, from (N, 4 + m) to (N, L, 2)."""
        return self.mean + (p @ self.bases.flatten(0, 1).T).unflatten(-1, (-1, 2))

    def project(self, shapes: Tensor) -> Tensor:
        """Parameters (N, 4 + m) of the model's shapes that are closest to `shapes` (N, L, 2)."""
        return (shapes - self.mean).flatten(1) @ self.bases.flatten(0, 1)

    def step(self, p: Tensor, v: Tensor, w: Tensor, strength: float) -> Tensor:
        """Eq. 8: the update of p (N, 4 + m) for vectors v (N, L, 2) with weights w (N, L) and a prior of `strength` rho^2."""
        size = self.bases.shape[-1]
        normal = (w @ self.products).unflatten(-1, (size, size)) + strength * torch.diag(self.precision)
        pull = (w[..., None] * v).flatten(1) @ self.bases.flatten(0, 1) - strength * self.precision * p
        return torch.cholesky_solve(pull[..., None], torch.linalg.cholesky(normal))[..., 0]


def similarity_bases(mean: Tensor) -> Tensor:
    """Orthonormal bases (L, 2, 4) of what similarities can do to a shape (L, 2): §III-C, after Matthews and Baker [41]."""
    centred = mean - mean.mean(0)
    turned = torch.stack([-centred[:, 1], centred[:, 0]], -1)
    one, zero = torch.ones_like(mean[:, 0]), torch.zeros_like(mean[:, 0])
    bases = torch.stack([centred, turned, torch.stack([one, zero], -1), torch.stack([zero, one], -1)], -1)
    return bases / bases.flatten(0, 1).norm(dim=0)  # orthogonal already


# §III-C and D Robust initialization, weighted regularized mean shift ------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """What a method of Table VIII does after the peaks are projected on the PDM."""

    correct: bool = False  # start from Eq. 14, not from the plain projection
    tune: bool = False  # mean shift
    weigh: bool = False  # by confidence, not equally


METHODS: dict[str, Steps | None] = {
    "CRM": None,
    "CRM-PDM": Steps(),
    "CRM-CLM": Steps(tune=True),
    "CRM-CLM-C": Steps(correct=True, tune=True),
    "ECT": Steps(correct=True, tune=True, weigh=True),
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """Shapes (N, L, 2) before the first and after each iteration, and the confidence (N, L) in the last patches."""

    shapes: tuple[Tensor, ...]
    confidence: Tensor


def peaks(maps: Tensor) -> Tensor:
    """Places (N, L, 2) of the highest responses, in whole pixels; of several equal ones, the first in reading order."""
    highest, width = maps.flatten(-2).argmax(-1), maps.shape[-1]
    return torch.stack([highest % width, highest // width], -1).to(maps.dtype)


class Patches:
    """Squares of `side` x `side` pixels of the response maps (N, L, H, W) around `centres` (N, L, 2).

    They hold the pixels from side/2 before a centre to just below side/2 after it. Beyond the maps and where they are negative,
    responses are 0.
    """

    def __init__(self, maps: Tensor, centres: Tensor, side: int) -> None:
        faces, points, height, width = maps.shape
        if side > min(height, width):
            raise ReplicateError(
                f"patches: got a side of {side} pixels on maps of {height} x {width}; expected one that fits; choose smaller `patches`"
            )
        low = torch.ceil(centres - side / 2).flatten(0, 1)  # (NL, 2)
        begin = low.clamp_min(0).minimum(low.new_tensor([width - side, height - side])).long()
        place = begin[..., None] + torch.arange(side, device=maps.device)  # (NL, 2, side)
        self.inside = ((place >= low[..., None]) & (place < low[..., None] + side)).to(maps.dtype)
        self.offset = place - centres.flatten(0, 1)[..., None]  # y - x_i
        number = torch.arange(faces * points, device=maps.device)[:, None]
        starts = (
            (number * height + place[:, 1]) * width + begin[:, :1]
        ).flatten()  # of the patches' rows, in memory
        rows = maps.reshape(-1).unfold(0, side, 1).index_select(0, starts)
        self.responses = rows.unflatten(0, (-1, side)).clamp_min_(0)  # (NL, side, side)
        self.faces = faces

    def sums(self, factors: Sequence[Tensor]) -> Tensor:
        """Sums of ``f(y) g(x) pi`` over a patch for every pair of separable factors, each (NL, 2, side): (N, L, pairs of f and g)."""
        stacked = torch.stack(factors, 2) * self.inside[:, :, None]  # (NL, 2, factors, side)
        by_column = torch.bmm(stacked[:, 1], self.responses)
        return torch.bmm(by_column, stacked[:, 0].mT).unflatten(0, (self.faces, -1))

    def confidence(self, config: ECTConfig) -> Tensor:
        """Eq. 15: w (N, L)."""
        found = self.sums([torch.ones_like(self.offset), self.offset, self.offset.square()])
        total = found[..., 0, 0]
        share = total.clamp_min(torch.finfo(total.dtype).tiny)
        first = torch.stack([found[..., 0, 1], found[..., 1, 0]], -1) / share[..., None]
        second = torch.stack([found[..., 0, 2], found[..., 2, 0]], -1) / share[..., None]
        return confidence(total, (second - first.square()).mean(-1), config)

    def mean_shift(self, rho: Tensor) -> Tensor:
        """Eq. 9: v (N, L, 2) for kernels of variance rho (N, L) or one number; 0 where there is no response."""
        kernel = torch.exp(-self.offset.square() / (2 * rho.reshape(-1, 1, 1)))
        found = self.sums([kernel, kernel * self.offset])
        toward = torch.stack([found[..., 0, 1], found[..., 1, 0]], -1)
        return toward / found[..., :1, 0].clamp_min(torch.finfo(toward.dtype).tiny)


def confidence(total: Tensor, variance: Tensor, config: ECTConfig) -> Tensor:
    """Eq. 15, from the sum of a patch's responses and their variance along an axis in squared pixels.

    As printed, ``sigmoid(a (sum / variance + b))`` with a = 0.25 and b = 25 is never below sigmoid(6.25) = 0.998, since sum and variance are
    not negative: all landmarks weigh the same, and ECT is CRM-CLM-C. The official code has the standard deviation in place of the
    variance and subtracts b; then an ideal map has a confidence near 1 and an empty one near 0. Subtracting b from the printed
    ratio gives no more than 0.02 even to an ideal map, because its sum over its variance is below b.

    Parameters
    ----------
    total, variance : Tensor
        (...); a variance below that of a single pixel, 1/12, counts as that.
    """
    variance = variance.clamp_min(1 / 12)
    if config.confidence == "as printed":
        return torch.sigmoid(config.a * (total / variance + config.b))
    if config.confidence == "variance":
        return torch.sigmoid(config.a * (total / variance - config.b))
    return torch.sigmoid(config.a * (total / (variance.sqrt() * config.unit) - config.b))


def fading(config: ECTConfig, strengths: Tensor) -> dict[str, Tensor]:
    """Confidence, by each reading of Eq. 15, of an ideal response map multiplied by each of `strengths` (K,): for a plot."""
    centre = strengths.new_full((1, 1, 2), config.input_size // 2)
    maps = strengths[:, None, None, None] * target_maps(centre, config)
    patches = Patches(maps, centre.expand(len(strengths), 1, 2), config.patch(0))
    return {form: patches.confidence(replace(config, confidence=form))[:, 0] for form in CONFIDENCES}


def refine(
    maps: Tensor,
    start: Tensor,
    pdm: PDM,
    config: ECTConfig,
    method: str = "ECT",
    iterations: int | None = None,
) -> Fitted:
    """Correction and tuning, Algorithm 1 from line 3 on.

    Parameters
    ----------
    maps : Tensor
        (N, L, H, W) response maps; contiguous, or they are copied.
    start : Tensor
        (N, L, 2), their peaks.
    pdm : PDM
        In pixels of the same frame.
    method : str
        One of `METHODS`.
    iterations : int, optional
        Of the tuning; by default as many as `config.patches` lists.
    """
    steps = METHODS[check_one_of("method", method, METHODS)]
    patches = Patches(maps, start, config.patch(0))
    w = patches.confidence(config)
    if steps is None:
        return Fitted((start,), w)
    pose = _pose(start, pdm, config)
    back, observed = invert(pose), apply_transform(pose, start)
    p = pdm.project(observed)
    if steps.correct:  # Eq. 14 is Eq. 8 for p = 0 and v = s - s_bar
        p = pdm.step(torch.zeros_like(p), observed - pdm.mean, w, config.gamma * config.unit**2)
    shapes = [apply_transform(back, pdm.shape(p))]
    prior = pdm.noise if config.prior_rho2 is None else config.prior_rho2 * config.unit**2
    for k in range((len(config.patches) if iterations is None else iterations) if steps.tune else 0):
        patches = Patches(maps, shapes[-1], config.patch(k))
        w = patches.confidence(config)
        weight = w if steps.weigh else torch.ones_like(w)
        v = patches.mean_shift(config.rho2 * config.unit**2 / weight)
        p = p + pdm.step(p, v @ pose[..., :2].mT, weight, prior)
        shapes.append(apply_transform(back, pdm.shape(p)))
    return Fitted(tuple(shapes), w)


def climb(maps: Tensor, start: Tensor, config: ECTConfig, iterations: int = 15) -> Fitted:
    """The tuning without a shape model: each landmark follows its own mean shift, Eq. 9, from its peak.

    It is no method of the paper. It finds the peaks between the pixels, and so tells what of the peaks' error is due to the grid.

    Parameters
    ----------
    maps, start, config
        As for `refine`.
    """
    shapes, patches = [start], Patches(maps, start, config.patch(0))
    for k in range(iterations):
        v = patches.mean_shift(start.new_tensor(config.rho2 * config.unit**2))
        shapes.append(shapes[-1] + v)
        patches = Patches(maps, shapes[-1], config.patch(k + 1))
    return Fitted(tuple(shapes), patches.confidence(config))


def _pose(start: Tensor, pdm: PDM, config: ECTConfig) -> Tensor:
    """Transforms (N, 2, 3) to where Phi has its orientation: the identity in Eq. 13, or else what brings the peaks to s_bar.

    All peaks count the same, and it is found once, so outliers turn it.
    """
    still = torch.eye(2, 3).to(start).expand(len(start), 2, 3)
    if not config.turning:
        return still
    pose = fit_similarity(start, pdm.mean.expand_as(start))
    return torch.where(
        (pose[..., :2] == 0).all(-1, keepdim=True), still, pose
    )  # peaks that are all in one place


Fit = Callable[[Tensor, Tensor], Fitted]  # from response maps and their peaks


def fits(pdm: PDM, config: ECTConfig, methods: Iterable[str] = METHODS) -> dict[str, Fit]:
    """The methods of Table VIII, by name."""
    return {method: partial(refine, pdm=pdm, config=config, method=method) for method in methods}


# The whole pipeline -----------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predict(network: FCN, canvases: Canvases, wanted: Mapping[str, Fit], batch: int = 8) -> dict[str, Fitted]:
    """What each fit makes of the response maps of N faces, which are computed once.

    Parameters
    ----------
    canvases : Canvases
        In colour, of the frame of the network's configuration.
    wanted : mapping
        By label, as from `fits`; their models are on the network's device.

    Returns
    -------
    dict of Fitted
        By label: shapes in pixels of the original images, and confidences, on the CPU.
    """
    device = network.conv8.weight.device
    fast, canvases = for_inference(network), canvases.to(device)
    found: dict[str, list[Fitted]] = {label: [] for label in wanted}
    for part in torch.arange(len(canvases), device=device).split(batch):
        maps = upsampled(fast(canvases.crops(part))[-1])
        start = peaks(maps)
        back = invert(canvases.from_image[part])
        for label, fit in wanted.items():
            one = fit(maps, start)
            shapes = tuple(apply_transform(back, shape).cpu() for shape in one.shapes)
            found[label].append(Fitted(shapes, one.confidence.cpu()))
    return {label: _joined(parts) for label, parts in found.items()}


def _joined(parts: Sequence[Fitted]) -> Fitted:
    shapes = zip(*(part.shapes for part in parts), strict=True)
    return Fitted(tuple(map(torch.cat, shapes)), torch.cat([part.confidence for part in parts]))
