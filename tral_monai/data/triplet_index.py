# SPDX-License-Identifier: Apache-2.0
"""The triplet index: one row per labelled tile triplet of a cohort, kept as a parquet table.

A triplet is a slide and the centre that its tiles at 40x, 10x and 2.5x share. Columns:

======================  =======  ==========================================================================
``id``                  int64    0, 1, 2, ... in the order of the table
``slide``               str      file name
``slide_path``          str      absolute path
``slide_mpp``           float64  micrometres per level-0 pixel that was used
``x_level0, y_level0``  int64    centre, level-0 px
``class``               str      class, empty where nobody has labelled the slide
``coverage``            float32  part of the 40x tile that lies in the class (in tissue, without a label)
``split``               str      train, val, test or pool
``patient``             str      the patient's code
======================  =======  ==========================================================================
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tral_monai.annotations.class_map import ClassMap
from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.annotations.tile_labels import label_tiles
from tral_monai.atomic_file import atomic_path
from tral_monai.data.cohort import Cohort
from tral_monai.data.index_report import IndexReport
from tral_monai.data.slide_tiles import SlideTiles
from tral_monai.errors import AnnotationError, CohortError, ConfigError, SlideError

logger = logging.getLogger(__name__)

COLUMNS = {
    "id": "int64",
    "slide": "str",
    "slide_path": "str",
    "slide_mpp": "float64",
    "x_level0": "int64",
    "y_level0": "int64",
    "class": "str",
    "coverage": "float32",
    "split": "str",
    "patient": "str",
}
"""Columns of the table and their types."""


def build_triplet_index(
    cohort: Cohort,
    class_map: ClassMap,
    *,
    coverage: float = 0.7,
    stride_px: int = 128,
    cap_per_slide_and_class: int | None = None,
    tissue_method: str | None = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Find every tile of a cohort that lies in an annotation of its class.

    Tiles follow a grid anchored at the slide's top left corner; a tile is taken if its class covers more than
    ``coverage`` of it (``annotations.tile_labels``). A slide without annotations gives all tiles with that much
    tissue, with an empty class. A slide that cannot be used is logged, left out and counted; so is such a shape.

    Args:
        cohort: the slides.
        class_map: class names to classes, and which of them are carved out of the others.
        coverage: least part of the tile, exclusive, in [0, 1).
        stride_px: distance of neighbouring tiles at 40x, in pixels, a multiple of 16; 128 gives tiles that touch.
        cap_per_slide_and_class: at most so many tiles of a class from one slide and split, drawn at random.
        tissue_method: only tissue counts, found by ``slides.tissue_mask``: ``auto``, or ``paper`` for TRI-AL's rule
            (green <= 250); None counts glass too.
        seed: of the draw. Which tiles are drawn does not depend on what other slides there are.
        progress: called with (slides done, slides in all).

    Returns:
        The table, sorted by slide, row and column. ``IndexReport.of(table)`` tells what was left out.

    Raises:
        UnknownClassError: a class name fits no rule and the class map says that this is an error; all such names of all
            slides are listed.
        CohortError: no tile is left.
        ConfigError: a setting is out of range.
    """
    if cap_per_slide_and_class is not None and cap_per_slide_and_class < 1:
        raise ConfigError(f"cap_per_slide_and_class must be at least 1 or None, but is {cap_per_slide_and_class}")
    if tissue_method not in ("auto", "paper", None):
        raise ConfigError(f"tissue_method must be auto, paper or None, but is {tissue_method!r}")
    slides = cohort.by_slide()
    work = SlideTiles(class_map, coverage, stride_px, tissue_method, IndexReport(slides=len(slides)))
    label_tiles({}, TileGrid((1, 1), 1.0, stride_px), classes=(), coverage=coverage)  # wrong settings, before slides
    tables = []
    for done, (path, rows) in enumerate(slides.items()):
        if progress is not None:
            progress(done, len(slides))
        try:
            table = work.find(path, rows)
        except (SlideError, AnnotationError) as error:
            work.report.skipped[path.name] = str(error).removeprefix(f"{path.name}: ")
            logger.warning("skipped %s: %s", path.name, work.report.skipped[path.name])
            continue
        tables.append(_capped(table, cap_per_slide_and_class, seed))
    if progress is not None:
        progress(len(slides), len(slides))
    work.raise_unknown()
    if not sum(map(len, tables)):
        reasons = "".join(f"\n  {line}" for line in work.report.lines()[:20])
        raise CohortError(
            f"no tile of {len(slides)} slides lies in an annotation for more than {coverage} of its area; check the "
            f"class names, the tissue mask and the mpp:{reasons}"
        )
    table = pd.concat([table for table in tables if len(table)])
    table = table.sort_values(["slide", "y_level0", "x_level0"], kind="stable", ignore_index=True)
    table.insert(0, "id", np.arange(len(table), dtype=np.int64))
    table = table.astype(COLUMNS)[list(COLUMNS)]
    work.report.triplets = len(table)
    work.report.attach_to(table)
    return table


def write_index(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write an index with its report as parquet; the file appears only once it is whole.

    Args:
        table: from :func:`build_triplet_index`.
        path: the file.

    Raises:
        CohortError: a column is missing.
        OutputError: the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    _check_columns(table, "the table")
    plain = table[list(COLUMNS)].astype(COLUMNS)
    plain.attrs = {}
    content = pyarrow.Table.from_pandas(plain, preserve_index=False)
    content = content.replace_schema_metadata(
        {**(content.schema.metadata or {}), b"tral_monai": json.dumps(table.attrs)}
    )
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(content, temporary)


def read_index(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read an index written by :func:`write_index`, with its report.

    Args:
        path: the file.

    Raises:
        CohortError: the file is missing, no parquet, or lacks a column.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    try:
        content = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise CohortError(f"triplet index {path}: cannot be read ({error}); build it again from the cohort") from error
    table = content.to_pandas()
    _check_columns(table, path.name)
    table = table.astype(COLUMNS)
    table.attrs = json.loads((content.schema.metadata or {}).get(b"tral_monai", b"{}"))
    return table


def _capped(table: pd.DataFrame, cap: int | None, seed: int) -> pd.DataFrame:
    if cap is None:
        return table
    table = table.sort_values(["y_level0", "x_level0"], ignore_index=True)
    kept = []
    for key, group in table.groupby(["slide", "split", "class"], sort=True):
        if len(group) > cap:
            digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
            generator = np.random.default_rng([seed, int.from_bytes(digest, "little")])
            group = group.iloc[np.sort(generator.choice(len(group), cap, replace=False))]
        kept.append(group)
    return pd.concat(kept) if kept else table


def _check_columns(table: pd.DataFrame, what: str) -> None:
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise CohortError(f"{what} is no triplet index: it lacks {', '.join(missing)}; build it again from the cohort")
