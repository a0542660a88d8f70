# SPDX-License-Identifier: Apache-2.0
"""The prototypes of a trained auxiliary detector, fitted to everything that the annotator has seen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tral_monai.data.nuclei.dataset import label_numbers
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.nuclei.prototypes import refit_prototypes

logger = logging.getLogger(__name__)


def refit_checkpoint(path: Path, samples: pd.DataFrame, method: Literal["minimise", "mean"], device: Any) -> None:
    """Fit the prototypes of a checkpoint to all answered nuclei (OSAL-ND, Sec. 2.3: at the end of a round).

    Args:
        path: checkpoint of a detector of role ``prototype``; it is replaced.
        samples: fields of view with answers.
        method: ``minimise`` or ``mean``, see :func:`tral_monai.networks.nuclei.prototypes.refit_prototypes`.
        device: where the network runs.

    Raises:
        CheckpointError: the file is not a detector's.
        SlideReadError: an image cannot be read.
    """
    network = load_checkpoint(path, expect=OpenSetRCNN)
    numbers, reader = label_numbers(network.classes, "prototype"), FovReader()
    fields = (
        (
            reader.read(row),
            np.array(row["boxes_px"], dtype=np.float32),
            np.array([numbers[name] for name in row["classes"]], dtype=np.int64),
        )
        for _, row in samples.iterrows()
    )
    found = refit_prototypes(network.to(device), fields, method=method)
    logger.info("prototypes fitted to %d known and %d unknown nuclei", found["known"], found["unknown"])
    save_checkpoint(path, network)
