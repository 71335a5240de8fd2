"""Errors of landmarks, the curves and rates made from them, and the statistics that compare two methods.

Units: errors, thresholds, AUC, failure rates, precision and recall are in per cent; an error is in per cent
of a NAMED normaliser, which is never defaulted. A paper's "AUC_0.08" is ``auc(errors, 8.0)``. Shares of a
curve, TAR and FAR are fractions, as the papers print them.

Convention: landmarks are ``(N, L, 2)`` arrays of (x, y) in pixels; boxes are ``(N, 4)`` arrays
``(x_min, y_min, x_max, y_max)``. Errors are arrays ``(N,)`` of N images, or ``(S, N)`` of S seeds on the same
images. For curves and rates, a face without any prediction has an infinite error, never NaN.
"""

from replicate.metrics.comparisons import (
    Comparison,
    Interval,
    Statistic,
    against_number,
    bootstrap_mean,
    bootstrap_statistic,
    is_equivalent,
    mcnemar,
    paired_bootstrap,
    relative_change,
)
from replicate.metrics.curves import (
    FailureRate,
    auc,
    ced,
    ced_at,
    failure_percent,
    failure_rate,
    failures,
    recall_at_precision,
    tar_at_far,
)
from replicate.metrics.landmarks import (
    NORMALISERS,
    PIXEL,
    mape,
    nme,
    normalising_distance,
    per_point_error,
    pixel_error,
)
from replicate.metrics.over_faces import (
    compare_curves,
    compare_recalls,
    curve_interval,
    recall_against_number,
    recall_interval,
)

__all__ = [
    "NORMALISERS",
    "PIXEL",
    "Comparison",
    "FailureRate",
    "Interval",
    "Statistic",
    "against_number",
    "auc",
    "bootstrap_mean",
    "bootstrap_statistic",
    "ced",
    "ced_at",
    "compare_curves",
    "compare_recalls",
    "curve_interval",
    "failure_percent",
    "failure_rate",
    "failures",
    "is_equivalent",
    "mape",
    "mcnemar",
    "nme",
    "normalising_distance",
    "paired_bootstrap",
    "per_point_error",
    "pixel_error",
    "recall_against_number",
    "recall_at_precision",
    "recall_interval",
    "relative_change",
    "tar_at_far",
]
