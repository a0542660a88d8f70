# SPDX-License-Identifier: Apache-2.0
"""Class probabilities as an OME-Zarr pyramid in the slide's coordinates, with the class map as its labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tral_monai.atomic_file import atomic_folder
from tral_monai.errors import ConfigError
from tral_monai.inference.class_map_png import legend
from tral_monai.inference.ome_zarr import OMEZarr
from tral_monai.inference.palette import class_colours, given_colours
from tral_monai.inference.slide_writer import SlideWriter
from tral_monai.inference.tissue_map import TissueMap

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator
    from tral_monai.slides.slide import Slide

LABELS = "classes"
"""Name of the label map beside the probabilities."""

_REMEDY = (
    "set keep_probabilities of the mapper to true (save_probabilities in inference.yaml), or leave this writer out"
)


def write_probabilities(
    path: str | os.PathLike[str],
    tissue: TissueMap,
    *,
    name: str,
    colours: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write a tissue map as an OME-Zarr: one channel per class of the model, and the class map as labels.

    Probabilities are float32 (rounded as the map has them), NaN where the model did not look. Why it did not is in
    ``labels/classes``: background and tiles that could not be decoded have values of their own. The attribute
    ``tral_monai`` holds ``classes``, ``step_level0`` (slide pixels per pixel), ``mpp_xy``, ``dimensions_level0``
    (width, height) and ``map_values``.

    Args:
        path: an empty folder, or one to make.
        tissue: the map, with its probabilities.
        name: of the image.
        colours: class colours that win over the built-in ones.

    Raises:
        ConfigError: the map was made without its probabilities.
    """
    if tissue.probabilities is None:
        raise ConfigError(f"the tissue map has no probabilities to write; {_REMEDY}")
    classes = tissue.classes
    palette = class_colours(classes.names, colours)
    image = OMEZarr(path, name=name, step_level0=tissue.grid.step_level0, mpp_xy=tissue.mpp_xy)
    image.write_image(
        (tissue.probabilities[..., output] for output in range(len(classes.model_classes))),
        names=classes.model_classes,
        colours=palette,
        attributes={
            "tral_monai": {
                "classes": list(classes.model_classes),
                "step_level0": tissue.grid.step_level0,
                "mpp_xy": list(tissue.mpp_xy),
                "dimensions_level0": list(tissue.grid.dimensions),
                "map_values": legend(classes.names, palette),
            }
        },
    )
    image.write_labels(
        tissue.class_index,
        group=LABELS,
        names=classes.names,
        colours=palette,
        transparent=classes.background,
        never_hidden=classes.not_analysed,
    )


class ProbabilityZarrWriter(SlideWriter):
    """Writes ``<name>_probabilities.ome.zarr``, a folder, for every slide. The mapper must keep its probabilities.

    Args:
        colours: class colours that win over the built-in ones, name -> (r, g, b).

    Raises:
        ConfigError: a colour is not three whole numbers from 0 to 255.
    """

    suffix = "_probabilities.ome.zarr"
    whole = staticmethod(atomic_folder)

    def __init__(self, *, colours: Mapping[str, Sequence[int]] | None = None) -> None:
        self.colours = given_colours(colours)

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the moment when a slide is mapped.

        Args:
            engine: the evaluator whose slides to write.

        Raises:
            ConfigError: its mapper does not keep probabilities.
        """
        if not getattr(engine.mapper, "keep_probabilities", False):
            raise ConfigError(
                f"the mapper does not keep the probabilities that {type(self).__name__} writes; {_REMEDY}"
            )
        super().attach(engine)

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours}

    def write(self, path: Path, slide: Slide, prediction: TissueMap) -> None:  # noqa: D102
        write_probabilities(path, prediction, name=slide.name, colours=self.colours)
