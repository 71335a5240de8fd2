"""Linear regression with an L2 penalty: in closed form, and by LIBLINEAR as support vector regression.

Both minimise ``||Y - X W||^2 + penalty * ||W||^2`` for features X (N, D) and targets Y (N, K). LIBLINEAR states it for one column w of W at a
time, as ``||w||^2 / 2 + C * ||y - X w||^2``, so that ``C = 1 / (2 * penalty)``.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from replicate.errors import ReplicateError
from replicate.progress import progress_bar

L2R_L2LOSS_SVR = 11  # LIBLINEAR's number of the solver, in the primal
ROWS = 4096  # of X that `linear` holds as floating-point numbers at a time


class Linear(NamedTuple):
    """A fitted regression.

    Attributes
    ----------
    weights : Tensor
        (D, K).
    bias : Tensor
        (K,); zeros if none was fitted.
    penalty : float
        The absolute one.
    """

    weights: Tensor
    bias: Tensor
    penalty: float


def ridge(features: Tensor, targets: Tensor, penalty: float, *, bias: bool = True) -> Linear:
    """The minimum in closed form, from the normal matrix of features or of samples, whichever is smaller.

    Parameters
    ----------
    features : Tensor
        (N, D) numbers of any kind; float32 is computed with, or float64 if they are.
    targets : Tensor
        (N, K).
    penalty : float
        Absolute.
    bias : bool
        Whether a constant without penalty is fitted too.

    Raises
    ------
    ReplicateError
        If the penalty is not positive, sizes disagree, or features or targets are not all finite.
    """
    _check(features, targets, penalty)
    kind = (
        torch.promote_types(features.dtype, torch.float32) if features.is_floating_point() else torch.float32
    )
    features, targets = features.to(kind, copy=bias), targets.to(kind, copy=bias)
    means = [x.mean(0) if bias else torch.zeros_like(x[0]) for x in (features, targets)]
    if bias:
        features -= means[0]
        targets -= means[1]
    dual = features.shape[0] < features.shape[1]
    normal = features @ features.T if dual else features.T @ features
    normal.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(normal)
    del normal
    if dual:
        weights = features.T @ torch.cholesky_solve(targets, factor)
    else:
        weights = torch.cholesky_solve(features.T @ targets, factor)
    return Linear(weights, means[1] - means[0] @ weights, penalty)


def mean_square(features: Tensor, *, centred: bool = False) -> float:
    """Mean of the squares of all features (N, D), or of their differences from each one's mean; in parts that fit into memory."""
    total, squares = torch.zeros(features.shape[1], dtype=torch.float64), 0.0
    for part in features.split(ROWS):
        total += part.sum(0, dtype=torch.float64).cpu()
        squares += part.float().square().sum(dtype=torch.float64).item()
    if centred:
        squares -= total.square().sum().item() / len(features)
    return squares / features.numel()


def support_vector_regression(
    features: Tensor, targets: Tensor, penalty: float, *, tolerance: float = 1e-3, processes: int = 1
) -> Linear:
    """The minimum found by LIBLINEAR's L2-regularised L2-loss support vector regression without a tube, ``-s 11 -p 0``; there is no bias.

    Parameters
    ----------
    penalty : float
        Absolute.
    tolerance : float
        LIBLINEAR's ``-e``: it stops when the gradient has shrunk by this factor.
    processes : int
        That share the K columns of the targets.

    Raises
    ------
    ReplicateError
        As `ridge`.

    References
    ----------
    Fan et al., LIBLINEAR: A Library for Large Linear Classification, JMLR 2008; Ho and Lin, Large-scale Linear Support Vector Regression,
    JMLR 2012.
    """
    _check(features, targets, penalty)
    # LIBLINEAR has absolute limits inside, which other units of the same problem keep away from
    unit, step = mean_square(features) ** 0.5 or 1.0, mean_square(targets) ** 0.5 or 1.0
    cost = unit**2 / (2 * penalty)
    columns, x = targets.double().cpu().numpy().T / step, features.double().cpu().numpy() / unit
    with progress_bar() as progress:
        bar = progress.add_task("LIBLINEAR", total=len(columns), remark="")
        weights = []
        for found in _in_processes(x, columns, cost, tolerance, processes):
            weights.append(found)
            progress.advance(bar)
    weights = torch.from_numpy(np.stack(weights, 1) * (step / unit)).to(features.device, torch.float32)
    return Linear(weights, torch.zeros(weights.shape[1], device=weights.device), penalty)


class Liblinear:
    """LIBLINEAR's regression, ``-s 11 -p 0``, of one output after the other on the same samples, which take its form once.

    Parameters
    ----------
    features : array
        (N, D) float64.
    cost : float
        LIBLINEAR's ``-c``: of a penalty lambda, 1 / (2 lambda).
    tolerance : float
        Its ``-e``.
    """

    def __init__(self, features: np.ndarray, cost: float, tolerance: float) -> None:
        from liblinear import liblinearutil  # loads a shared library that only this solver needs

        self._library, self._inputs = liblinearutil, features.shape[1]
        # of a dense array, LIBLINEAR would forget last features that are zero throughout
        self._problem = liblinearutil.problem(np.zeros(len(features)), scipy.sparse.csr_matrix(features))
        options = f"-s {L2R_L2LOSS_SVR} -p 0 -c {cost:.17g} -e {tolerance:g} -q"
        self._parameter = liblinearutil.parameter(options)
        self._targets = np.ctypeslib.as_array(self._problem.y, (len(features),))

    def weights(self, targets: np.ndarray) -> np.ndarray:
        """Weights (D,) for targets (N,)."""
        self._targets[:] = targets
        return np.array(self._library.train(self._problem, self._parameter).w[: self._inputs])


def _in_processes(
    x: np.ndarray, columns: np.ndarray, cost: float, tolerance: float, processes: int
) -> Iterator[np.ndarray]:
    """Weights (D,) of each column, in order."""
    if processes == 1:
        yield from map(Liblinear(x, cost, tolerance).weights, columns)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (x, cost, tolerance)) as pool:
        yield from pool.map(_column, columns)


_solver: Liblinear | None = None  # of this process


def _start(x: np.ndarray, cost: float, tolerance: float) -> None:
    global _solver
    _solver = Liblinear(x, cost, tolerance)


def _column(y: np.ndarray) -> np.ndarray:
    """Weights (D,) for targets (N,)."""
    return _solver.weights(y)


def linear(features: Tensor, fitted: Linear) -> Tensor:
    """Predictions (N, K) of a regression for features (N, D) of any kind, some rows at a time."""
    return torch.cat([part.float() @ fitted.weights + fitted.bias for part in features.split(ROWS)])


def _check(features: Tensor, targets: Tensor, penalty: float) -> None:
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or not len(features):
        raise ReplicateError(
            f"features, targets: got shapes {tuple(features.shape)} and {tuple(targets.shape)}, expected (N, D) and (N, K), N > 0"
        )
    if not penalty > 0:
        raise ReplicateError(f"penalty: got {penalty}, expected a positive number")
    for name, values in (("features", features), ("targets", targets)):
        if not all(part.isfinite().all() for part in values.split(ROWS)):
            raise ReplicateError(f"{name}: some are NaN or infinite; leave such samples out")
