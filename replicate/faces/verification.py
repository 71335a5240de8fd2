"""Face verification: are two sets of images of the same person (TCNN §5.2)?

A template is the set of images by which a person is known to the system, one or several. A benchmark fixes splits, and each split
fixes the faces that may be trained on, the templates, and the pairs of templates to be told apart. The people of the training
faces appear in no template of the same split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replicate.errors import ReplicateError

SPLITS = 10  # TCNN §5.2
TRAINING_SHARE = 333 / 500  # of the people; TCNN §5.2: 333 subject templates for training, of 500 people
DIFFERENT_PER_SAME = 9992 / 1756  # pairs a split on average (Klare et al. 2015, IJB-A verification)
MOST_TEMPLATES = (
    4  # of one person; our choice: at most six same pairs each, so that no person dominates a split
)


@dataclass(frozen=True, eq=False)
class VerificationSplit:
    """One split of a verification benchmark; its numbers are indices into a set of N faces.

    Attributes
    ----------
    name : str
        For messages and captions.
    train : array
        (M,) int, the faces that may be trained on.
    templates : tuple of array
        Each (m,) int with m ≥ 1: the faces of one template.
    pairs : array
        (P, 2) int, numbers of templates.
    same : array
        (P,) bool, whether the two templates of a pair show the same person.

    Raises
    ------
    ReplicateError
        If a template is empty, a pair names a template that is not there or one template twice, `same` has another length than
        `pairs`, or a training face is in a template.
    """

    name: str
    train: np.ndarray
    templates: tuple[np.ndarray, ...]
    pairs: np.ndarray
    same: np.ndarray

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise ReplicateError(f"verification split {self.name}: {what}")

        if any(template.size == 0 for template in self.templates):
            refuse("a template has no faces, expected one or more")
        if self.pairs.shape != (len(self.same), 2):
            refuse(
                f"pairs of shape {self.pairs.shape}, expected ({len(self.same)}, 2), one row for each of `same`"
            )
        if self.pairs.size and not (self.pairs.min() >= 0 and self.pairs.max() < len(self.templates)):
            refuse(f"a pair names a template outside 0 to {len(self.templates) - 1}")
        if (self.pairs[:, 0] == self.pairs[:, 1]).any():
            refuse("a pair compares a template with itself")
        if self.templates and np.isin(np.concatenate(self.templates), self.train).any():
            refuse("a training face is in a template; training and test must not share faces")


def synthetic_templates(
    identity: np.ndarray,
    *,
    seed: int,
    splits: int = SPLITS,
    training_share: float = TRAINING_SHARE,
    different_per_same: float = DIFFERENT_PER_SAME,
) -> tuple[VerificationSplit, ...]:
    """Splits like those of Janus CS2 from faces of known people.

    In each split the people are drawn anew: of 500, 333 are for training and 167 for testing, and of fewer the same share. The
    images of a test person are dealt at random into two to four disjoint templates (one, if there is one image). All pairs of
    templates of one person are compared, and `different_per_same` times as many pairs of different people, or all there are.

    Parameters
    ----------
    identity : array
        (N,) int or str, the person that each face shows.
    seed : int
        The splits depend on `identity` and `seed` alone, and split k not on the number of splits.
    splits : int
        Number of splits.
    training_share : float
        Share of the people that are for training, between 0 and 1.
    different_per_same : float
        Different pairs for each same pair.

    Raises
    ------
    ReplicateError
        If there are fewer than three people, or no test person of a split has two images.
    """
    people = np.unique(identity)
    if len(people) < 3:
        raise ReplicateError(
            f"identity: {len(people)} people, expected at least 3 (one to train on, two to compare)"
        )
    training = int(np.clip(round(training_share * len(people)), 1, len(people) - 2))
    return tuple(
        _synthetic_split(
            identity, people, training, different_per_same, str(k), np.random.default_rng([seed, k])
        )
        for k in range(splits)
    )


def from_comparisons(
    name: str, train: np.ndarray, template: np.ndarray, comparisons: np.ndarray, identity: np.ndarray
) -> VerificationSplit:
    """A split from a protocol that lists the template of each sighting and the pairs of templates.

    Parameters
    ----------
    name : str
        For messages and captions.
    train : array
        (M,) int, training faces.
    template : array
        (S, 2) int: a template's identifier and a face of it.
    comparisons : array
        (P, 2) int, pairs of identifiers.
    identity : array
        (N,), the person that each face shows.

    Raises
    ------
    ReplicateError
        If a comparison names a template without faces, a template shows several people, or a training person is tested.
    """
    order = np.argsort(template[:, 0], kind="stable")
    identifiers, starts = np.unique(template[order, 0], return_index=True)
    templates = tuple(np.split(template[order, 1], starts[1:])) if len(identifiers) else ()
    _check_one_person_each(name, identifiers, templates, identity)
    pairs = np.searchsorted(identifiers, comparisons)
    known = np.isin(comparisons, identifiers)
    if not known.all():
        raise ReplicateError(
            f"verification split {name}: template {comparisons[~known][0]} is compared but has no faces; "
            "check the metadata and the list of comparisons against each other"
        )
    person = np.array([identity[faces[0]] for faces in templates])
    seen = np.intersect1d(person, identity[train])
    if seen.size:
        raise ReplicateError(f"verification split {name}: person {seen[0]} is in training and in test")
    return VerificationSplit(name, train, templates, pairs, person[pairs[:, 0]] == person[pairs[:, 1]])


def from_folds(
    fold: np.ndarray, pairs: np.ndarray, same: np.ndarray, pair_fold: np.ndarray
) -> tuple[VerificationSplit, ...]:
    """Splits from identity-disjoint folds: each fold is the test of one split, and all the others train it.

    Parameters
    ----------
    fold : array
        (N,) int, the fold of each face.
    pairs : array
        (P, 2) int, pairs of faces; each face of a pair is a template of one image.
    same : array
        (P,) bool, whether a pair shows one person.
    pair_fold : array
        (P,) int, the fold that each pair belongs to.
    """
    splits = []
    for k in np.unique(pair_fold):
        of_fold = pair_fold == k
        faces, numbers = np.unique(pairs[of_fold], return_inverse=True)
        splits.append(
            VerificationSplit(
                str(k),
                np.flatnonzero(fold != k),
                tuple(faces[:, None]),
                numbers.reshape(-1, 2),
                same[of_fold],
            )
        )
    return tuple(splits)


def _check_one_person_each(
    name: str, identifiers: np.ndarray, templates: Sequence[np.ndarray], identity: np.ndarray
) -> None:
    for identifier, faces in zip(identifiers, templates, strict=True):
        shown = np.unique(identity[faces])
        if len(shown) > 1:
            raise ReplicateError(
                f"verification split {name}: template {identifier} shows {len(shown)} people ({', '.join(map(str, shown))}), "
                "expected one"
            )


def _synthetic_split(
    identity: np.ndarray,
    people: np.ndarray,
    training: int,
    different_per_same: float,
    name: str,
    rng: np.random.Generator,
) -> VerificationSplit:
    shuffled = rng.permutation(people)
    test = np.sort(shuffled[training:])
    templates, person = [], []
    for someone in test:
        dealt = _deal(np.flatnonzero(identity == someone), rng)
        templates += dealt
        person += [someone] * len(dealt)
    pairs = np.stack(np.triu_indices(len(templates), k=1), axis=1)
    is_same = np.array(person)[pairs[:, 0]] == np.array(person)[pairs[:, 1]]
    if not is_same.any():
        raise ReplicateError(
            f"identity: none of the {len(test)} test people of split {name} has two images; expected several of each person"
        )
    different = np.flatnonzero(~is_same)
    wanted = min(len(different), round(different_per_same * int(is_same.sum())))
    chosen = np.sort(np.concatenate([np.flatnonzero(is_same), rng.choice(different, wanted, replace=False)]))
    train = np.flatnonzero(np.isin(identity, shuffled[:training]))
    return VerificationSplit(name, train, tuple(templates), pairs[chosen], is_same[chosen])


def _deal(faces: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Deal the images of one person into disjoint templates, none of them empty."""
    if len(faces) == 1:
        return [faces]
    count = rng.integers(2, min(MOST_TEMPLATES, len(faces)), endpoint=True)
    cuts = np.sort(rng.choice(np.arange(1, len(faces)), count - 1, replace=False))
    return [np.sort(part) for part in np.split(rng.permutation(faces), cuts)]
