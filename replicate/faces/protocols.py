"""Protocols: what a benchmark fixes (markup, splits, counts, box rule, normalisers), as a table without input or output.

Counts are those of the papers or of the official release; `replicate.faces.sources` finds or makes the faces behind them.
"""

from dataclasses import dataclass

from replicate.faces.boxes import SQUARE, TIGHT, WHOLE_FACE, BoxRule
from replicate.vocabulary import PROFILES, check_one_of

IN_A_ROW = 5  # faces of a person that follow one another, so that a few faces hold people who are seen more than once


@dataclass(frozen=True)
class Split:
    """One part of a benchmark.

    Attributes
    ----------
    count : int
        Faces of the official split. A union counts its parts.
    smoke : int
        Synthetic faces at the `smoke` profile: the first ones of the split.
    condition : str
        Condition of `replicate.faces.synthetic` that stands for its photographs.
    first : int
        Index of its first synthetic face: splits that share a condition share no face.
    union : tuple of (protocol, split)
        The disjoint splits that make this one up.
    real, data_set : str
        Its name in the adapter of its data set (empty: it has no real counterpart), and that data set where it differs from the
        protocol's.
    size : int
        Side of its synthetic images in pixels.
    cpu : int or None
        Synthetic faces at the `cpu` profile, where the official count would not fit its budget.
    identities : int
        People in a synthetic split, who take turns of `in_a_row` faces; 0: everybody is somebody else.
    in_a_row, first_person : int
        Faces of a person that follow one another, and the number of the first person: people of other numbers are others.
    markup : str
        Where it differs from the protocol's.
    normalisers, box_rule
        Where they differ from the protocol's.
    """

    count: int = 0
    smoke: int = 0
    condition: str = ""
    first: int = 0
    union: tuple[tuple[str, str], ...] = ()
    real: str = ""
    data_set: str = ""
    size: int = 256
    cpu: int | None = None
    identities: int = 0
    in_a_row: int = IN_A_ROW
    first_person: int = 0
    markup: str = ""
    normalisers: tuple[str, ...] = ()
    box_rule: BoxRule | None = None


@dataclass(frozen=True)
class Protocol:
    """One benchmark.

    Attributes
    ----------
    title, about : str
        For readers.
    data_set : str
        Its name in `replicate.faces.real.DATA_SETS`; empty if it has no adapter.
    markup : str
        Name in `replicate.faces.markups`.
    normalisers : tuple of str
        Names in `replicate.metrics`, the papers' first.
    papers : tuple of str
        Who uses it.
    box_rule : BoxRule
        Where the boxes come from, if the data set ships none.
    """

    title: str
    about: str
    data_set: str
    markup: str
    normalisers: tuple[str, ...]
    papers: tuple[str, ...]
    splits: dict[str, Split]
    box_rule: BoxRule = TIGHT


_DISTANCES_68 = ("inter-ocular", "inter-pupil", "diagonal")

PROTOCOLS: dict[str, Protocol] = {
    "300w": Protocol(
        title="300-W",
        about="Faces in the wild of four collections, annotated alike with 68 points, and the 600 images of the 300-W competition.",
        data_set="300w",
        markup="ibug68",
        normalisers=(*_DISTANCES_68, "face"),
        papers=("lddr", "tcnn", "dan", "rnn", "ect"),
        splits={
            "train": Split(union=(("lfpw", "train"), ("helen", "train"), ("afw", "train"))),
            "common": Split(union=(("lfpw", "test"), ("helen", "test"))),
            "challenging": Split(135, 12, "challenging", real="ibug"),
            "full": Split(union=(("300w", "common"), ("300w", "challenging"))),
            "private": Split(600, 24, "private", real="private"),
            "train+menpo": Split(union=(("300w", "train"), ("menpo", "train"))),  # DAN-Menpo, DAN §4
            "lfpw+helen": Split(union=(("lfpw", "train"), ("helen", "train"))),  # LDDR §4.1, tested on AFW
            # TCNN §5.3 tests on all of 300-W; these are its faces that a fitter of LFPW and HELEN has not seen
            "unseen": Split(
                union=(("afw", "train"), ("helen", "test"), ("300w", "challenging"), ("lfpw", "test"))
            ),
            # synthetic alone: faces of every condition, for training what is to meet photographs
            "wide": Split(12000, 64, "train"),
        },
    ),
    "lfpw": Protocol(
        title="LFPW",
        about="Web photographs of public figures, annotated again with 68 points for 300-W.",
        data_set="300w",
        markup="ibug68",
        normalisers=("inter-pupil", "face", "inter-ocular"),
        papers=("lddr", "rnn"),
        splits={
            "train": Split(811, 16, "lfpw", real="lfpw/trainset"),
            "test": Split(224, 12, "lfpw", first=811, real="lfpw/testset"),
        },
    ),
    "helen": Protocol(
        title="HELEN",
        about="Large portraits from Flickr, annotated again with 68 points for 300-W.",
        data_set="300w",
        markup="ibug68",
        normalisers=("inter-pupil", "face", "inter-ocular"),
        papers=("lddr", "rnn"),
        splits={
            "train": Split(2000, 40, "helen", real="helen/trainset"),
            "test": Split(330, 12, "helen", first=2000, real="helen/testset"),
        },
    ),
    "afw": Protocol(
        title="AFW",
        about="Flickr pictures with several faces and large turns of the head; 337 faces have 68 points (300-W), 468 have six.",
        data_set="afw",
        markup="afw6",
        normalisers=("box", "inter-pupil"),
        papers=("lddr", "tcnn", "ect"),
        splits={
            "train": Split(
                337,
                8,
                "afw",
                real="afw",
                data_set="300w",
                markup="ibug68",
                normalisers=("inter-pupil", "face", "inter-ocular"),
            ),
            "test": Split(468, 16, "afw", first=337, real="test", box_rule=SQUARE),
            # the photographs of `train`, which TCNN does not train on, with the five points that it finds
            "five": Split(
                337,
                8,
                "afw-300w",
                real="afw",
                data_set="300w",
                markup="mtfl5",
                normalisers=("inter-pupil",),
                box_rule=SQUARE,
            ),
        },
    ),
    "ijb-a": Protocol(
        title="IJB-A",
        about="Stills of 500 people with every kind of pose, light and resolution; three points a face.",
        data_set="ijb-a",
        markup="ijba3",
        normalisers=("eye-nose",),
        papers=("lddr",),
        splits={"test": Split(13741, 24, "ijb-a", real="stills", size=128, identities=500)},
        box_rule=WHOLE_FACE,
    ),
    "mtfl": Protocol(
        title="MTFL",
        about="Web photographs for training and AFLW faces for the test, with five points, gender, smile, glasses and pose.",
        data_set="mtfl",
        markup="mtfl5",
        normalisers=("inter-pupil",),
        papers=("tcnn",),
        splits={
            "train": Split(10000, 64, "mtfl-train", real="train", size=128),
            "test": Split(2995, 24, "mtfl-aflw", first=10000, real="test", size=128),
        },
        box_rule=SQUARE,
    ),
    "aflw-pifa": Protocol(
        title="AFLW-PIFA",
        about="Flickr faces turned by up to 90 degrees, with 34 points of which many cannot be seen.",
        data_set="aflw-pifa",
        markup="aflw34",
        normalisers=("box",),
        papers=("ect",),
        splits={
            "train": Split(3901, 48, "aflw", real="train"),
            "test": Split(1299, 24, "aflw", first=3901, real="test"),
        },
    ),
    "cofw": Protocol(
        title="COFW",
        about="Faces behind hands, food, glasses and hair, with 29 points and a flag for each that is hidden.",
        data_set="cofw",
        markup="cofw29",
        normalisers=("inter-pupil",),
        papers=("ect",),
        splits={
            "train": Split(1345, 32, "cofw", real="train"),
            "test": Split(507, 16, "cofw", first=1345, real="test"),
        },
    ),
    "mafl": Protocol(
        title="MAFL",
        about="Celebrities (a part of CelebA) with five points.",
        data_set="mafl",
        markup="mtfl5",
        normalisers=("inter-pupil",),
        papers=("rnn",),
        splits={
            "train": Split(19000, 48, "mafl", real="train", size=192),
            "test": Split(1000, 16, "mafl", first=19000, real="test", size=192),
        },
        box_rule=SQUARE,
    ),
    "menpo": Protocol(
        title="Menpo, semi-frontal",
        about="More training faces with 68 points than 300-W has, and a test set whose points were never published.",
        data_set="menpo",
        markup="ibug68",
        normalisers=_DISTANCES_68,
        papers=("dan",),
        splits={
            "train": Split(6679, 32, "menpo", real="train"),
            "test": Split(5335, 12, "menpo", first=6679, real="test"),
        },
    ),
    "janus": Protocol(
        title="Janus CS2",
        about="Face verification: 500 people in 5,712 stills and 2,042 videos, compared by templates of several pictures.",
        data_set="janus",
        markup="ijba3",
        normalisers=("eye-nose",),
        papers=("tcnn",),
        splits={  # one frame of each video at `cpu`
            "all": Split(5712 + 20412, 60, "janus", real="all", size=128, cpu=5712 + 2042, identities=500),
            # synthetic alone: the same faces with five points and boxes around them, as methods that find five have them
            "five": Split(
                5712 + 20412,
                60,
                "janus",
                size=128,
                cpu=5712 + 2042,
                identities=500,
                markup="mtfl5",
                normalisers=("inter-pupil",),
                box_rule=SQUARE,
            ),
        },
        box_rule=WHOLE_FACE,
    ),
    "casia": Protocol(
        title="CASIA-WebFace",
        about="Other people than those of Janus, many pictures of each, for training what is to recognise faces.",
        data_set="",  # no adapter: synthetic alone
        markup="mtfl5",
        normalisers=("inter-pupil",),
        papers=("tcnn",),
        splits={  # Yi et al., 2014: 494,414 images of 10,575 people; 500 of them at `cpu`
            "train": Split(
                494414,
                60,
                "ijb-a",
                first=13741,
                size=128,
                cpu=10000,
                identities=10575,
                in_a_row=20,
                first_person=500,
            ),
        },
        box_rule=SQUARE,
    ),
}


def get(protocol: str, split: str) -> tuple[Protocol, Split]:
    """The protocol and the split of these names.

    Raises
    ------
    ReplicateError
        If there is no such protocol, or no such split.
    """
    check_one_of("protocol", protocol, PROTOCOLS)
    found = PROTOCOLS[protocol]
    check_one_of("split", split, found.splits)
    return found, found.splits[split]


def leaves(protocol: str, split: str) -> tuple[tuple[str, str], ...]:
    """The splits that hold the faces of one, in order: itself, if it is no union."""
    union = get(protocol, split)[1].union
    return tuple(leaf for part in union for leaf in leaves(*part)) or ((protocol, split),)


def official_count(protocol: str, split: str) -> int:
    """Faces of the official split, or of one that exists as synthetic faces alone."""
    return sum(PROTOCOLS[p].splits[s].count for p, s in leaves(protocol, split))


def synthetic_count(protocol: str, split: str, profile: str) -> int:
    """Synthetic faces of a split at a profile."""
    check_one_of("profile", profile, PROFILES)
    return sum(_count(PROTOCOLS[p].splits[s], profile) for p, s in leaves(protocol, split))


def _count(split: Split, profile: str) -> int:
    if profile == "smoke":
        return split.smoke
    return split.cpu if profile == "cpu" and split.cpu is not None else split.count


def person_of(split: Split, index: int) -> int | None:
    """Who is on the synthetic face of this index; None if nobody appears twice."""
    if not split.identities:
        return None
    return split.first_person + (index - split.first) // split.in_a_row % split.identities


def markup_of(protocol: str, split: str) -> str:
    """The markup of a split."""
    found, part = get(*leaves(protocol, split)[0])
    return part.markup or found.markup


def box_rule_of(protocol: str, split: str) -> BoxRule:
    """The rule of the simulated boxes of a split that is no union."""
    found, part = get(protocol, split)
    return part.box_rule or found.box_rule


def data_set_of(protocol: str, split: str) -> str:
    """The data set that holds the real faces of a split that is no union."""
    found, part = get(protocol, split)
    return part.data_set or found.data_set
