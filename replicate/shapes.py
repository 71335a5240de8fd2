"""Statistics of shapes: the mean shape and its placement in a box.

Coordinates follow `replicate.geometry`: (x, y) in pixels, 0-based, pixel centres at integers.
"""

from torch import Tensor

from replicate.geometry import box_centre, box_size, procrustes_align, tight_box


def mean_shape(shapes: Tensor, iterations: int = 3) -> Tensor:
    """Mean of shapes after generalised Procrustes alignment.

    Parameters
    ----------
    shapes : Tensor
        (N, L, 2), all points known.
    iterations : int
        Rounds of alignment to the current mean; three settle it to well below a thousandth of its size.

    Returns
    -------
    Tensor
        (L, 2): centre of the tight box at the origin, mean of its width and height 1, mean orientation of the input.
    """
    mean = unit_size(shapes).mean(0)
    for _ in range(iterations):
        mean = unit_size(procrustes_align(shapes, mean).mean(0))
    return mean


def unit_size(shapes: Tensor) -> Tensor:
    """Shapes (..., L, 2) moved and scaled so that their tight boxes are centred at 0 with mean side 1."""
    boxes = tight_box(shapes)
    return (shapes - box_centre(boxes)[..., None, :]) / box_size(boxes).mean(-1)[..., None, None]


def fit_in_boxes(shape: Tensor, boxes: Tensor) -> Tensor:
    """Place a shape (L, 2) in boxes (..., 4): centres aligned, scaled by the mean of the width and height ratios.

    Returns
    -------
    Tensor
        (..., L, 2) in the coordinates of the boxes.
    """
    own = tight_box(shape)
    scale = (box_size(boxes) / box_size(own)).mean(-1)
    return (shape - box_centre(own)) * scale[..., None, None] + box_centre(boxes)[..., None, :]
