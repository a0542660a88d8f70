# SPDX-License-Identifier: Apache-2.0
"""Tissue masks of the slides last looked at: a server asked for one region after the other makes each only once."""

from __future__ import annotations

import collections
import os
import threading
from pathlib import Path
from typing import Any, Protocol

from tral_monai.slides.slide import Slide
from tral_monai.slides.tissue import TissueMask


class MaskMaker(Protocol):
    """What makes masks: both mappers do."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides a mask, and more, as plain data."""

    def tissue_mask(self, slide: Slide) -> TissueMask:
        """The mask of a slide."""


class MaskCache:
    """Keeps the last few masks, for use from several threads. A file that changes is looked at again.

    Args:
        slides: how many masks are kept; one takes up to a few megabytes.
    """

    def __init__(self, slides: int = 4) -> None:
        self.slides = slides
        self._masks: collections.OrderedDict[Any, TissueMask] = collections.OrderedDict()
        self._lock = threading.Lock()

    def mask(self, path: str | os.PathLike[str], slide: Slide, maker: MaskMaker) -> TissueMask:
        """The tissue mask of a slide.

        Args:
            path: its file.
            slide: the same, open.
            maker: what makes the mask where it is not there yet.

        Raises:
            SlideReadError: the slide cannot be decoded.
        """
        file = Path(path).resolve()
        status = file.stat()
        settings = maker.settings()
        how = tuple(settings.get(name) for name in ("tissue_method", "min_object_um2", "max_hole_um2"))
        key = (file, status.st_mtime_ns, status.st_size, slide.mpp_xy, how)
        with self._lock:  # also while a mask is made: a second thread would only make the same one
            if key not in self._masks:
                self._masks[key] = maker.tissue_mask(slide)
                while len(self._masks) > self.slides:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            return self._masks[key]
