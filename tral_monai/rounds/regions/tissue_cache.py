# SPDX-License-Identifier: Apache-2.0
"""The tissue of a site's slides, found once per slide and kept: reading it takes seconds."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path

import numpy as np

from tral_monai.atomic_file import atomic_path
from tral_monai.slides import Slide, TissueMask, tissue_mask
from tral_monai.slides.fingerprint import slide_fingerprint

logger = logging.getLogger(__name__)


def cached_tissue(slide: Slide, folder: str | Path) -> TissueMask:
    """The tissue mask of a slide, from ``folder`` where it lies there.

    A file is named by the slide's content and mpp, so that a slide that was replaced is looked at anew, and is written
    in one step. A damaged file is made anew.

    Args:
        slide: the open slide.
        folder: where masks are kept; made where it does not exist.

    Raises:
        SlideReadError: the slide cannot be decoded.
        OutputError: the mask cannot be written.
    """
    key = hashlib.sha256(f"{slide_fingerprint(slide.path)}\0{slide.mpp:.6f}".encode()).hexdigest()[:24]
    file = Path(folder) / f"{key}.npz"
    if file.is_file():
        try:
            with np.load(file) as stored:
                width = int(stored["width"])
                mask = np.unpackbits(stored["mask"], axis=1, count=width).astype(bool)
                return TissueMask(mask, float(stored["mpp"]), float(stored["downsample_level0"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("the kept tissue mask of %s is damaged (%s) and is made anew", slide.name, error)
    found = tissue_mask(slide)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        np.savez_compressed(
            temporary,
            mask=np.packbits(found.mask, axis=1),
            width=found.mask.shape[1],
            mpp=found.mpp,
            downsample_level0=found.downsample_level0,
        )
    return found
