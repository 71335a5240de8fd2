"""Real faces: one adapter for each published data set, in its official layout below `$REPLICATE_DATA`.

An adapter reads annotations and names image files; it decodes no pixels and knows no protocol. :mod:`.reading` holds what all share.
"""

from replicate.faces.real import aflw, afw, cofw, fddb, ijba, janus, lfw, mafl, menpo, mtfl, w300
from replicate.faces.real.reading import Annotations, DataSet, Part

DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        w300.DATA_SET,
        mtfl.DATA_SET,
        afw.DATA_SET,
        cofw.DATA_SET,
        mafl.DATA_SET,
        aflw.DATA_SET,
        aflw.PIFA_DATA_SET,
        menpo.DATA_SET,
        ijba.DATA_SET,
        janus.DATA_SET,
        fddb.DATA_SET,
        lfw.DATA_SET,
    )
}

__all__ = ["DATA_SETS", "Annotations", "DataSet", "Part"]
