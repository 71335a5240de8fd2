"""Captions of tables and figures: faces, profile, images, seeds, training faces and boxes, drawn from what is shown."""

from collections.abc import Collection, Iterable, Sequence

from replicate.errors import ReplicateError
from replicate.evidence.rows import Row

SMOKE_WARNING = "smoke profile: numbers mean nothing"
MANY = 6  # methods that a caption would have to name
SYNTHETIC_REMARK = "Synthetic faces are not the paper's benchmark: compare directions, not sizes"


def caption(rows: Iterable[Row], title: str = "") -> str:
    """What a table or figure was measured on: faces, profile, images, seeds, box rule; drawn from its rows.

    Parameters
    ----------
    rows : iterable of Row
        Of one kind of faces and one profile.
    title : str
        Put in front.
    """
    rows = list(rows)
    check_one_edition(rows)
    sets = set_names(rows)
    named = any(sets.values())  # a statement about no test set has its images from another row
    images: dict[str, int] = {}
    for row in rows:
        name = sets[row.protocol, row.subset]
        if row.images and (name or not named):
            images[name] = max(row.images, images.get(name, 0))  # rows may be about parts of a set
    return caption_of(
        faces=rows[0].faces,
        profile=rows[0].profile,
        images=images,
        seeds=span([row.seeds or 1 for row in rows]),
        box_rule=next((row.box_rule for row in rows if row.box_rule), ""),
        notes=_notes(rows),
        title=title,
        intervals=any(row.ci_low is not None for row in rows),
    )


def set_names(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """What the test sets of rows are called, by protocol and subset: ``"challenging"``, or ``"lfpw test"`` where several protocols meet."""
    several = len({row.protocol for row in rows if row.protocol}) > 1
    pairs = dict.fromkeys((row.protocol, row.subset) for row in rows)
    return {pair: " ".join(filter(None, pair)) if several else pair[1] for pair in pairs}


def span(seeds: Collection[int]) -> str:
    """How many training seeds, in words; methods of a table may differ."""
    low, high = min(seeds, default=1), max(seeds, default=1)
    return f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    return notes_of((row.method, row.note) for row in rows)


def notes_of(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Each note once; with the methods that it is about, unless it is about all.

    Parameters
    ----------
    pairs : iterable of (str, str)
        Methods and what is noted of them, several notes with semicolons between.
    """
    methods: dict[str, list[str]] = {}
    everything = set()
    for method, noted in pairs:
        everything.add(method)
        for note in filter(None, noted.split("; ")):
            methods.setdefault(note, []).append(method)
    return tuple(
        note if set(about) == everything else f"{_listed(dict.fromkeys(about))}: {note}"
        for note, about in methods.items()
    )


def _listed(methods: Iterable[str]) -> str:
    """Names of methods one after the other, quoted where a name has a comma itself; of many, how many they are."""
    names = list(methods)
    if len(names) > MANY:
        return f"{len(names)} of the methods"
    return (
        ", ".join(f"“{name}”" for name in names) if any("," in name for name in names) else ", ".join(names)
    )


def caption_of(
    *,
    faces: str,
    profile: str,
    images: dict[str, int],
    seeds: int | str,
    box_rule: str = "",
    notes: Sequence[str] = (),
    title: str = "",
    intervals: bool = True,
) -> str:
    """Caption of a table or figure that has no rows; `images` counts the images of each subset, `seeds` may be in words."""
    counts = ", ".join(f"{count:,} {subset}".strip() for subset, count in images.items())
    parts = [
        f"{faces} faces",
        f"profile {profile}",
        f"{counts} images" if counts else "",
        seeds if isinstance(seeds, str) else span([seeds]),
        *notes,
        f"boxes: {box_rule}" if box_rule else "",
        "95 % intervals by bootstrap" if intervals else "",
    ]
    lines = [title, "; ".join(filter(None, parts))]
    if faces == "synthetic" and counts:
        lines.append(SYNTHETIC_REMARK)
    if profile == "smoke":
        lines.insert(0, SMOKE_WARNING.upper())
    return ". ".join(line[0].upper() + line[1:].rstrip(".") for line in lines if line) + "."


def figure_caption(
    title: str,
    *,
    faces: str,
    profile: str,
    subset: str = "",
    images: int | None = None,
    seeds: int | None = None,
    box_rule: str = "",
) -> str:
    """Caption of a figure: what it shows and what it was made from."""
    parts = [
        f"{title[0].upper()}{title[1:]}: {faces} faces",
        f"profile {profile}",
        f"{images:,} {subset} image{'s' * (images > 1)}".replace("  ", " ") if images else subset,
        f"{seeds} seed{'s' * (seeds > 1)}" if seeds else "",
        f"boxes: {box_rule}" if box_rule else "",
    ]
    smoke = f"{SMOKE_WARNING.upper()}. " if profile == "smoke" else ""
    return smoke + "; ".join(filter(None, parts)) + "."


def check_one_edition(rows: Sequence[Row]) -> None:
    """Refuse rows of several kinds of faces or profiles in one table.

    Raises
    ------
    ReplicateError
        Also without rows.
    """
    editions = {(row.faces, row.profile) for row in rows}
    if len(editions) != 1:
        raise ReplicateError(
            f"rows: got {sorted(editions) or 'none'}, expected rows of one kind of faces and one profile"
        )
