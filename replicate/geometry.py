"""Planar geometry of shapes and images: boxes, similarity transforms, Procrustes alignment, bilinear warps.

Convention
----------
Points are `(..., L, 2)` arrays of (x, y) in pixels, 0-based; the centre of the top-left pixel is (0, 0). Boxes are `(..., 4)`
as (x_min, y_min, x_max, y_max) in the same coordinates, so a box of one pixel has no extent. Transforms are `(..., 2, 3)`
matrices ``[A | t]`` that act on column vectors, ``p' = A p + t``; they always map *source* to *target* coordinates, for points
and for images alike. Every function is batched over the leading axes, differentiable, and keeps the floating type of its input.
"""

import torch
from torch import Tensor


def tight_box(points: Tensor) -> Tensor:
    """Smallest boxes around the points: (..., L, 2) to (..., 4)."""
    return torch.cat([points.amin(-2), points.amax(-2)], -1)


def box_centre(boxes: Tensor) -> Tensor:
    """Centres (x, y) of boxes: (..., 4) to (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def box_size(boxes: Tensor) -> Tensor:
    """Widths and heights of boxes in pixels: (..., 4) to (..., 2)."""
    return boxes[..., 2:] - boxes[..., :2]


def perturb_boxes(boxes: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
    """Move boxes by `shift` (..., 2), in units of their width and height, and scale them by ``exp(log_scale)`` (...)."""
    size = box_size(boxes)
    centre = box_centre(boxes) + shift * size
    half = size * log_scale.exp()[..., None] / 2
    return torch.cat([centre - half, centre + half], -1)


def similarity(scale: Tensor, angle: Tensor, translation: Tensor) -> Tensor:
    """Similarity transforms from scales (...), angles (...) in radians (x axis towards y axis) and translations (..., 2)."""
    a, b = scale * torch.cos(angle), scale * torch.sin(angle)
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    return torch.cat([linear, translation[..., None]], -1)


def fit_similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares similarity from `source` to `target`, in closed form and without reflection.

    Minimises the sum of squared distances between ``T(source)`` and `target`, both (..., L, 2); degenerate sources (all points
    equal) give a scale of zero rather than a division by zero.

    References
    ----------
    DAN §3.2 (transform estimation); Umeyama, PAMI 1991, restricted to two dimensions.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    s, t = source - source_mean, target - target_mean
    spread = s.square().sum((-2, -1)).clamp_min(torch.finfo(s.dtype).tiny)
    a = (s * t).sum((-2, -1)) / spread
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(-1) / spread
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    translation = target_mean.mT - linear @ source_mean.mT
    return torch.cat([linear, translation], -1)


def fit_affine(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares affine transform from `source` to `target`, both (..., L, 2): (..., 2, 3).

    Points on a line determine no such transform: for them the result is not finite, or meaningless.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    s, t = source - source_mean, target - target_mean
    linear = torch.linalg.solve_ex(s.mT @ s, s.mT @ t)[0].mT
    return torch.cat([linear, target_mean.mT - linear @ source_mean.mT], -1)


def apply_transform(transform: Tensor, points: Tensor) -> Tensor:
    """Map points (..., L, 2) by transforms (..., 2, 3)."""
    return points @ transform[..., :2].mT + transform[..., 2][..., None, :]


def compose(second: Tensor, first: Tensor) -> Tensor:
    """The transform that applies `first`, then `second`; both (..., 2, 3)."""
    linear = second[..., :2] @ first[..., :2]
    translation = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return torch.cat([linear, translation], -1)


def invert(transform: Tensor) -> Tensor:
    """Inverse of transforms (..., 2, 3)."""
    a, b, c, d = (transform[..., i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
    inverse = (
        torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
        / (a * d - b * c)[..., None, None]
    )
    return torch.cat([inverse, -inverse @ transform[..., 2:]], -1)


def procrustes_align(shapes: Tensor, reference: Tensor) -> Tensor:
    """Shapes (..., L, 2) after the similarity that brings each closest to `reference` (L, 2)."""
    return apply_transform(fit_similarity(shapes, reference.expand_as(shapes)), shapes)


def warp(images: Tensor, transform: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample images bilinearly so that what was at ``p`` comes to lie at ``T(p)``.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W), floating point.
    transform : Tensor
        (N, 2, 3), from source pixels to target pixels.
    size : tuple of int
        (height, width) of the result in pixels.

    Returns
    -------
    Tensor
        (N, C, height, width). Positions outside the source take the value of the nearest border pixel.
    """
    height, width = size
    x, y = (torch.arange(n, dtype=transform.dtype, device=transform.device) for n in (width, height))
    extent = transform.new_tensor([images.shape[-1] - 1, images.shape[-2] - 1]).clamp_min(1)
    back = (invert(transform) * (2 / extent)[:, None])[
        :, None, None
    ]  # (N, 1, 1, 2, 3), to coordinates of -1 to 1
    along_x = back[..., 0] * x[:, None]  # (N, 1, width, 2)
    along_y = back[..., 1] * y[:, None, None] + back[..., 2] - 1  # (N, height, 1, 2)
    grid = (along_x + along_y).to(
        images.dtype
    )  # align_corners: -1 and 1 are the centres of the border pixels
    return torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
