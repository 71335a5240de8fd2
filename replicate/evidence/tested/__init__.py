"""Predictions of models on test sets, for notebooks: from the record, else from the model store, else trained now."""

from replicate.evidence.tested.baseline import test_baseline as test_baseline
from replicate.evidence.tested.dan import test_compared as test_compared
from replicate.evidence.tested.dan import test_dan as test_dan
from replicate.evidence.tested.ect import CLIMBED as CLIMBED
from replicate.evidence.tested.ect import COMPONENTS as COMPONENTS
from replicate.evidence.tested.ect import CORRECTION as CORRECTION
from replicate.evidence.tested.ect import ECT_METHODS as ECT_METHODS
from replicate.evidence.tested.ect import ITERATIONS as ITERATIONS
from replicate.evidence.tested.ect import SHAPED as SHAPED
from replicate.evidence.tested.ect import SWEPT as SWEPT
from replicate.evidence.tested.ect import TUNED as TUNED
from replicate.evidence.tested.ect import test_ect as test_ect
from replicate.evidence.tested.lddr import STARTS as STARTS
from replicate.evidence.tested.lddr import test_lddr as test_lddr
from replicate.evidence.tested.lddr import test_lddr_compared as test_lddr_compared
from replicate.evidence.tested.rnn import CANDIDATES as CANDIDATES
from replicate.evidence.tested.rnn import MEAN_START as MEAN_START
from replicate.evidence.tested.rnn import PEAKS_ALONE as PEAKS_ALONE
from replicate.evidence.tested.rnn import test_rnn as test_rnn
from replicate.evidence.tested.tcnn import ONE_IMAGE as ONE_IMAGE
from replicate.evidence.tested.tcnn import ONE_PIXEL as ONE_PIXEL
from replicate.evidence.tested.tcnn import test_tcnn as test_tcnn
from replicate.evidence.tested.tcnn import test_vanilla as test_vanilla
