"""What the networks of all methods share: folding batch normalisation, and growing a network in width."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from replicate.errors import ReplicateError

WIDENING_NOISE = 0.05  # of the standard deviation of a weight; lets the copies of a channel part


def fold_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    """The same function in evaluation mode, with each batch normalisation folded into the layer before it."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer)
        elif isinstance(layer, nn.BatchNorm1d):
            folded[-1] = fuse_linear_bn_eval(folded[-1], layer)
        else:
            folded.append(layer)
    return nn.Sequential(*folded)


def widen(tensors: Mapping[str, Tensor], wide: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Weights for a wider network that computes what a narrow one does, up to a little noise.

    Every channel is repeated as often as the wide network has room for, and weights that read repeated channels are divided by
    the number of copies. This covers convolutions, batch normalisation, and dense layers on flattened maps.

    Parameters
    ----------
    tensors : dict
        State of the narrow network.
    wide : dict
        State of the wide one, of which only the shapes are used; may hold more than `tensors`.
    seed : int
        Of the noise.

    Returns
    -------
    dict
        The names of `tensors` with the shapes of `wide`.

    Raises
    ------
    ReplicateError
        If a size is not a multiple of the narrow one.

    References
    ----------
    Chen, Goodfellow and Shlens, Net2Net, ICLR 2016.
    """
    generator = torch.Generator().manual_seed(seed)
    wider = {}
    for name, value in tensors.items():
        copies = _copies(name, value.shape, wide[name].shape)
        wider[name] = value.repeat(copies)
        if max(copies, default=1) > 1 and value.ndim > 1:
            wider[name] /= torch.tensor(copies[1:]).prod()
            noise = torch.randn(wider[name].shape, generator=generator)
            wider[name] += WIDENING_NOISE * wider[name].std() * noise
    return wider


def _copies(name: str, narrow: torch.Size, wide: torch.Size) -> tuple[int, ...]:
    """How often each axis is repeated."""
    if len(narrow) != len(wide) or any(w % n for n, w in zip(narrow, wide, strict=True)):
        raise ReplicateError(
            f"{name}: cannot be widened from {tuple(narrow)} to {tuple(wide)}; expected multiples of each size"
        )
    return tuple(w // n for n, w in zip(narrow, wide, strict=True))
