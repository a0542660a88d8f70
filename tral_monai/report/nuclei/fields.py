# SPDX-License-Identifier: Apache-2.0
"""The fields that each round asked for: which of them are shown, with the nuclei answered and those predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import SlideError
from tral_monai.report.nuclei.run_data import BOX, NucleusRunData
from tral_monai.report.pictures import jpeg_uri

FIELDS_PER_ROUND = 6
FIELDS_IN_ALL = 40  # keeps the page at a few megabytes however many rounds there were
PICTURE_PX = 384  # longer side of an embedded picture
BOXES_PER_FIELD = 800
SHOWN_SCORE = 0.5  # the score from which detections on unknown nuclei are counted, too
PREDICTIONS_FILE = "query_predictions.parquet"
PREDICTION_COLUMNS = ("sample_id", *BOX, "label", "score")


class Outlines(NamedTuple):
    """Boxes of one kind in one field: the class or answer, how many, and an SVG path in pixels of the FOV."""

    name: str
    total: int
    path: str


@dataclass(frozen=True)
class FieldCard:
    """One field of view that was asked for.

    Attributes:
        sample_id: its id.
        slide: the image or slide that it lies in.
        place_px: left and upper edge in that image.
        width_px: its width as the detector sees it; so is the height.
        height_px: its height.
        picture: a JPEG data URI, or None where it cannot be read.
        answered: whether there is an answer.
        truth: what was answered, known classes first.
        predictions: what the round's model had found there, or None where that was not kept.
        boxes: boxes drawn.
        minutes: annotator minutes.
        score: the strategy's score; NaN where it gave none.
        reason: the strategy's reason, in its words.
    """

    sample_id: int
    slide: str
    place_px: tuple[int, int]
    width_px: int
    height_px: int
    picture: str | None
    answered: bool
    truth: tuple[Outlines, ...]
    predictions: tuple[Outlines, ...] | None
    boxes: float
    minutes: float
    score: float
    reason: str

    def count(self, *kinds: str) -> int:
        """Answered nuclei of these names."""
        return sum(own.total for own in self.truth if own.name in kinds)

    @property
    def predicted(self) -> int:
        """Nuclei that the model had found, at a score of 0.5 or more."""
        return sum(own.total for own in self.predictions or ())


@dataclass(frozen=True)
class RoundFields:
    """The query of one round: the fields on show, and how many there were."""

    round: int
    cards: tuple[FieldCard, ...]
    total: int
    answered: int

    @property
    def more(self) -> int:
        """Fields that are not shown."""
        return self.total - len(self.cards)


def round_fields(run: NucleusRunData) -> tuple[tuple[RoundFields, ...], dict[str, str]]:
    """The queries of all rounds, the first ranks of each with pictures.

    Returns:
        The rounds, and why pictures are missing, by the image's file name ("" for all of them).
    """
    queries = run.tables["queries"]
    rounds = sorted(int(value) for value in queries["round"].unique())
    limit = max(2, min(FIELDS_PER_ROUND, FIELDS_IN_ALL // max(len(rounds), 1)))
    problems: dict[str, str] = {}
    reader = FovReader(cache_bytes=128 << 20)
    fovs = run.fovs if run.fovs is None else run.fovs.set_index("id", drop=False)
    if rounds and fovs is None:
        problems[""] = "the run has no fovs.parquet, which says where they lie"
    result = []
    for round_ in rounds:
        query = queries[queries["round"] == round_].sort_values("rank")
        predictions = _predictions(run, round_, problems)
        cards = [_card(run, row, fovs, predictions, reader, problems) for _, row in query.head(limit).iterrows()]
        answered = int(query["sample_id"].isin(run.tables["labels"]["sample_id"]).sum())
        result.append(RoundFields(round_, tuple(cards), len(query), answered))
    return tuple(result), dict(sorted(problems.items()))


def box_path(boxes_px: npt.ArrayLike) -> str:
    """Boxes (k, 4) as the ``d`` of one SVG path, a tenth of a pixel exact."""
    boxes = np.asarray(boxes_px, dtype=np.float64).reshape(-1, 4)
    parts = []
    for xmin, ymin, xmax, ymax in boxes:
        width, height = _short(xmax - xmin), _short(ymax - ymin)
        parts.append(f"M{_short(xmin)} {_short(ymin)}h{width}v{height}h-{width}z")
    return "".join(parts)


def outlines(boxes_px: npt.ArrayLike, names: Sequence[str], order: Sequence[str]) -> tuple[Outlines, ...]:
    """Boxes (k, 4) gathered by name, in a given order, names beyond it last; at most 800 boxes in all are drawn."""
    boxes = np.asarray(boxes_px, dtype=np.float64).reshape(-1, 4)
    own = np.asarray(names, dtype=object)
    found = list(dict.fromkeys([*(name for name in order if name in set(names)), *names]))
    drawn = np.arange(len(boxes)) < BOXES_PER_FIELD
    return tuple(Outlines(name, int((own == name).sum()), box_path(boxes[(own == name) & drawn])) for name in found)


def _card(
    run: NucleusRunData,
    row: pd.Series,
    fovs: pd.DataFrame | None,
    predictions: pd.DataFrame | None,
    reader: FovReader,
    problems: dict[str, str],
) -> FieldCard:
    sample = int(row["sample_id"])
    labels = run.tables["labels"]
    label = labels[labels["sample_id"] == sample]
    nuclei = run.nuclei[run.nuclei["sample_id"] == sample]
    order = (*run.classes, UNKNOWN, IGNORED)
    width, height, picture = _picture(sample, fovs, reader, problems)
    if not width:  # without a picture the boxes still say how large the field is at least
        width, height = (math.ceil(float(nuclei[side].max())) if len(nuclei) else 0 for side in ("xmax", "ymax"))
    found = None if predictions is None else predictions[predictions["sample_id"] == sample]
    return FieldCard(
        sample_id=sample,
        slide=str(row["slide"]),
        place_px=(int(row["x_level0"]), int(row["y_level0"])),
        width_px=width,
        height_px=height,
        picture=picture,
        answered=len(label) > 0,
        truth=outlines(nuclei[list(BOX)].to_numpy(), nuclei["answer"].tolist(), order),
        predictions=None if found is None else outlines(found[list(BOX)].to_numpy(), found["label"].tolist(), order),
        boxes=float(label["cost_labels"].sum()),
        minutes=float(label["cost_minutes"].sum()),
        score=float("nan") if pd.isna(row["score"]) else float(row["score"]),
        reason="" if pd.isna(row["reason"]) else str(row["reason"]),
    )


def _picture(
    sample: int, fovs: pd.DataFrame | None, reader: FovReader, problems: dict[str, str]
) -> tuple[int, int, str | None]:
    """Width and height of the FOV as the detector sees it and a picture of it, reduced to 384 px."""
    if fovs is None or sample not in fovs.index:
        if fovs is not None:
            problems.setdefault(f"field {sample}", "fovs.parquet does not list it")
        return 0, 0, None
    row = {str(name): value for name, value in fovs.loc[[sample]].to_dict("records")[0].items()}
    scale = float(row["mpp"]) / float(row["fov_mpp"])
    width, height = (max(round(float(row[side]) * scale), 1) for side in ("width_px", "height_px"))
    name = Path(str(row["image"])).name or str(row["field"])
    if name in problems:
        return width, height, None
    try:
        pixels = reader.read(row)
    except (SlideError, OSError) as error:
        # The message would name the folder; a report names an image by its file name only.
        problems[name] = (
            f"it could not be read ({type(error).__name__})"
            if str(row["image"]) and Path(str(row["image"])).exists()
            else "its file is no longer where it was"
        )
        return width, height, None
    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    return width, height, jpeg_uri(np.asarray(image))


def _predictions(run: NucleusRunData, round_: int, problems: dict[str, str]) -> pd.DataFrame | None:
    path = run.folder / "rounds" / f"round_{round_:03d}" / PREDICTIONS_FILE
    if not path.is_file():
        return None
    name = f"{path.parent.name}/{PREDICTIONS_FILE}"
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow has many ways to say that this is no parquet file
        problems[name] = f"it cannot be read ({type(error).__name__})"
        return None
    missing = [column for column in PREDICTION_COLUMNS if column not in table.columns]
    if missing:
        problems[name] = f"it lacks the columns {missing}"
        return None
    return table[table["score"] >= SHOWN_SCORE].assign(label=table["label"].astype(str))


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
