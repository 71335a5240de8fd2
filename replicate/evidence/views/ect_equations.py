"""Eqs 8, 9 and 11 to 15 of ECT against what is computed: small checks on numbers whose result is known or can be found another way."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from replicate.methods import ect
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import PDM, Patches


def check_fit(pdm: PDM, config: ECTConfig, seed: int = 0) -> dict[str, float]:
    """Deviations of the correction and the tuning from the equations, on shapes of the model whose landmarks were moved at random.

    Returns
    -------
    dict
        Eq. 14 against the normal equations of Eq. 12 with all matrices written out, and against the projection where weights are equal
        and there is no prior (Eq. 11), in pixels; the slope of Eq. 12 at p_0, as a share of the slope at p = 0; and how far Eq. 14 as
        printed, with s in place of its difference to the mean shape, is from the correction, in pixels.
    """
    double = replace(pdm, **{name: tensor.double() for name, tensor in pdm.tensors().items()})
    random = torch.Generator().manual_seed(seed)
    shapes = _some_shapes(double, random)
    w = torch.rand(shapes.shape[:2], generator=random, dtype=torch.float64)
    gamma, origin = config.gamma * config.unit**2, torch.zeros(len(shapes), double.bases.shape[-1]).double()
    p = double.step(origin, shapes - double.mean, w, gamma)
    plain = double.step(origin, shapes - double.mean, torch.ones_like(w), 0.0)
    printed = double.step(origin, shapes, w, gamma)
    slopes = [_slope(double, shapes, w, gamma, at) for at in (p, origin)]
    return {
        "Eq. 14 against Eq. 12 with all matrices, px": _farthest(
            double.shape(p), _with_matrices(double, shapes, w, gamma)
        ),
        "slope of Eq. 12 at the result of Eq. 14": (slopes[0].norm() / slopes[1].norm()).item(),
        "Eq. 11 with equal weights against the projection, px": _farthest(
            double.shape(plain), double.shape(double.project(shapes))
        ),
        "Eq. 14 as printed against the correction, px": _farthest(double.shape(printed), double.shape(p)),
    }


def check_patches(config: ECTConfig) -> dict[str, float]:
    """Deviations of Eqs 9 and 15 from their closed forms, for an ideal response map in a patch that holds all of it.

    A Gaussian of variance sigma^2 seen through a kernel of variance rho has its mean the share rho / (rho + sigma^2) of the way to the
    Gaussian's centre: the mean shift, in pixels. The sum of the map is 2 pi sigma^2 times its peak: the confidence.
    """
    alone = dict(narrow=None, pretraining=None)  # what the network grew from has no part in the fit
    wide = replace(
        config, input_size=4 * config.input_size, sigma=config.sigma / 4, peak=config.peak, **alone
    )
    sigma, middle = wide.sigma * wide.unit, wide.input_size / 2
    maps = ect.target_maps(torch.full((1, 1, 2), middle, dtype=torch.float64), wide)
    off = torch.tensor([[[1.2, -0.7]]], dtype=torch.float64) * sigma
    rho = config.rho2 * config.unit**2
    patches = Patches(maps, middle + off, wide.input_size // 2)
    v = patches.mean_shift(torch.tensor([[rho]], dtype=torch.float64))
    ratio = 2 * np.pi * sigma * wide.peak / config.unit
    known = 1 / (1 + np.exp(-config.a * (ratio - config.b)))
    found = patches.confidence(replace(config, confidence="deviation"))
    return {
        "Eq. 9, mean shift on an ideal map, px": _farthest(v, -off * rho / (rho + sigma**2)),
        "Eq. 15, confidence of an ideal map": abs(found.item() - known),
    }


def _some_shapes(pdm: PDM, random: torch.Generator, count: int = 8) -> Tensor:
    """Shapes of the model, each landmark moved by some pixels."""
    p = torch.randn(count, pdm.bases.shape[-1], generator=random, dtype=torch.float64)
    p[:, 4:] *= pdm.eigenvalues[: pdm.active].sqrt()
    shapes = pdm.shape(5 * p)
    return shapes + 3 * torch.randn(shapes.shape, generator=random, dtype=torch.float64)


def _with_matrices(pdm: PDM, shapes: Tensor, w: Tensor, gamma: float) -> Tensor:
    """Shapes by Eq. 14, one after the other, with the matrices W, S and Lambda-tilde of the paper."""
    S, prior = pdm.bases.flatten(0, 1).numpy(), np.diag(pdm.precision.numpy())
    found = []
    for shape, weights in zip((shapes - pdm.mean).flatten(1).numpy(), w.numpy(), strict=True):
        W = np.diag(np.repeat(weights, 2))
        found.append(S @ np.linalg.inv(gamma * prior + S.T @ W @ S) @ S.T @ W @ shape)
    return pdm.mean + torch.as_tensor(np.array(found)).unflatten(1, (-1, 2))


def _slope(pdm: PDM, shapes: Tensor, w: Tensor, gamma: float, p: Tensor) -> Tensor:
    """Slope of Eq. 12, with the shape model of Eq. 13, at p."""
    p = p.clone().requires_grad_()
    cost = (w[..., None] * (shapes - pdm.shape(p)).square()).sum()
    cost = cost + gamma * (p[:, 4:].square() / pdm.eigenvalues[: pdm.active]).sum()
    return torch.autograd.grad(cost, p)[0]


def _farthest(shapes: Tensor, others: Tensor) -> float:
    return (shapes - others).norm(dim=-1).max().item()
