# SPDX-License-Identifier: Apache-2.0
"""The image that a client asks to infer on: only files that it may, with the best micrometres per pixel there are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tral_monai.errors import ConfigError, MissingMppError, UnknownItemError
from tral_monai.label_app.image_answer import MAX_PX
from tral_monai.rounds.regions.catalog import SlideCatalog, SlideEntry, slide_id
from tral_monai.slides.slide import Slide, open_slide


class ImageSource:
    """Opens slides and pictures by path or by what a client calls them.

    Args:
        catalog: the slides of the studies folder.
        allowed: whether a file may be read, by its path; None allows what lies in the studies folder.
        site_mpp: micrometres per level-0 pixel of images that record none, as the lab said; None where it did not.
    """

    def __init__(
        self, catalog: SlideCatalog, *, allowed: Callable[[Path], bool] | None = None, site_mpp: float | None = None
    ) -> None:
        self._catalog, self._allowed, self._site_mpp = catalog, allowed or self._in_studies, site_mpp

    def find(self, image: object) -> Path:
        """The file of an image.

        Args:
            image: an absolute path, or a name that the catalog knows.

        Raises:
            ConfigError: it is no text.
            UnknownItemError: there is no such image, or it may not be read; nothing is told of files elsewhere.
        """
        if not isinstance(image, str | Path) or not str(image):
            raise ConfigError(f"image must name a slide or a picture, but is {str(image)[:60]!r}")
        path = Path(image)
        if not path.is_absolute():
            return self._catalog.find(str(image)).path
        if "\0" in str(image) or not self._allowed(path) or not path.is_file():
            raise UnknownItemError(
                f"there is no image '{path.name}' that may be read; name a slide of the studies folder"
            )
        return path

    def open(self, path: Path, *, mpp: float | None, model_mpp: float) -> tuple[Slide, tuple[str, ...]]:
        """Open an image; the caller closes it.

        Args:
            path: a file that :meth:`find` gave.
            mpp: micrometres per level-0 pixel that the client says; None takes what the slides table says, else what
                the file records, else that of the slide that a picture ``<slide>-patch-x_y_w_h`` was cut from, else the
                lab's setting, else, for a picture, that of the model.
            model_mpp: what the model was trained at.

        Returns:
            The open image, and a warning where its resolution is a guess.

        Raises:
            MissingMppError: nobody says it of a slide (several levels, or larger than a picture), which is no guess.
            SlideError: the file cannot be opened.
        """
        entry = self._entry(path)
        if mpp is None and entry is not None:
            mpp = entry.mpp
        try:
            return open_slide(path, mpp=mpp), ()
        except MissingMppError:
            pass  # a plain picture
        origin = self._origin_mpp(path)
        if origin is not None:
            return open_slide(path, mpp=origin), ()
        if self._site_mpp is not None:
            return open_slide(path, mpp=self._site_mpp), ()
        picture = open_slide(path, mpp=model_mpp)
        if len(picture.level_dimensions) > 1 or max(picture.dimensions) > MAX_PX:
            picture.close()
            raise MissingMppError(
                f"{path.name}: the slide records no micrometres per pixel; give the scanner's value, such as 0.25 for "
                "a 40x scan, in the column mpp of slides.csv in the studies folder, as mpp with the request, or with "
                "--conf mpp at the start of the server"
            )
        warning = (
            f"{path.name} records no micrometres per pixel and was taken to have the {model_mpp:.4g} that the model "
            "was trained at; give mpp with the request, or --conf mpp at the start of the server, if it has others"
        )
        return picture, (warning,)

    def _entry(self, path: Path) -> SlideEntry | None:
        entry = self._catalog.entries().get(path.name)
        return entry if entry is not None and os.path.realpath(entry.path) == os.path.realpath(path) else None

    def _origin_mpp(self, path: Path) -> float | None:
        """Micrometres per pixel of a picture that a viewer cut out of a slide."""
        try:
            region = self._catalog.patch_origin(slide_id(path.name))
        except UnknownItemError:
            return None
        if region is None:
            return None
        try:
            with self._catalog.open(region.slide) as slide, open_slide(path, mpp=1.0) as picture:
                return slide.mpp * region.width_level0 / picture.dimensions[0]
        except MissingMppError:
            return None

    def _in_studies(self, path: Path) -> bool:
        # A slide may be a link that the lab put there; what must not leave the folder is the way to it.
        folder = os.path.realpath(path.parent)
        return Path(folder).is_relative_to(os.path.realpath(self._catalog.studies)) and path.name not in ("", "..")
