# SPDX-License-Identifier: Apache-2.0
"""Nuclei as a table that a spreadsheet and pandas open: one row per nucleus."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.slide_writer import SlideWriter

_CHUNK = 20_000

COLUMNS = (
    "nucleus", "class", "score", "uncertainty", "distance_known", "distance_unknown", "xmin_level0", "ymin_level0",
    "xmax_level0", "ymax_level0", "centre_x_um", "centre_y_um", "width_um", "height_um",
)  # fmt: skip
"""Columns, in order. A value that is not known is an empty cell."""


def write_nuclei_csv(path: str | os.PathLike[str], nuclei: NucleusMap) -> None:
    """Write one row per nucleus, numbered from 1 in the order of the GeoJSON file.

    Args:
        path: the CSV file.
        nuclei: what to write.
    """
    import pandas as pd

    scale = np.array(nuclei.mpp_xy)
    with open(path, "w", newline="", encoding="utf-8") as stream:  # noqa: PTH123
        for start in range(0, max(len(nuclei), 1), _CHUNK):
            part = slice(start, start + _CHUNK)
            boxes = nuclei.boxes_level0[part].astype(np.float64)
            low, high = boxes[:, :2], boxes[:, 2:]
            centre_um, size_um = (low + high) / 2 * scale, (high - low) * scale
            values: dict[str, Any] = {
                "nucleus": np.arange(start + 1, start + 1 + len(boxes)),
                "class": [nuclei.classes[label] for label in nuclei.labels[part].tolist()],
                **{
                    name: getattr(nuclei, name)[part].astype(np.float64).round(4)
                    for name in ("score", "uncertainty", "distance_known", "distance_unknown")
                },
                **dict(zip(COLUMNS[6:10], boxes.T.round(2), strict=True)),
                **dict(zip(COLUMNS[10:12], centre_um.T.round(3), strict=True)),
                **dict(zip(COLUMNS[12:14], size_um.T.round(3), strict=True)),
            }
            table = pd.DataFrame(values, columns=list(COLUMNS))
            table.to_csv(stream, index=False, header=start == 0, lineterminator="\n")


class NucleiCSVWriter(SlideWriter):
    """Writes ``<name>.csv`` for every image."""

    suffix = ".csv"

    def write(self, path: str | os.PathLike[str], slide: object, prediction: NucleusMap) -> None:  # noqa: D102
        write_nuclei_csv(path, prediction)
