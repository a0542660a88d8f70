# SPDX-License-Identifier: Apache-2.0
"""Inference on many slides, one after the other, each result kept as a label of tag ``original``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from tral_monai.errors import TralError

logger = logging.getLogger(__name__)


class SiteBatchInfer(BatchInferTask):
    """A slide that cannot be used is reported and the others go on."""

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        """Infer on the images that the request names (``all``, ``labeled``, ``unlabeled`` or a list).

        Args:
            request: of the client; ``max_batch_size`` limits the number.
            datastore: the slides.
            infer: the app's ``infer``.

        Returns:
            Per image ``{"label", "tag", "params"}``, or ``{"error": sentence}``.
        """
        images: Iterable[str] = sorted(self.get_images(request, datastore))
        limit = int(request.get("max_batch_size") or 0)
        images = list(images)[:limit] if limit > 0 else list(images)
        results: dict[str, Any] = {}
        for number, image in enumerate(images, 1):
            try:
                results[image] = infer({**request, "image": image, "save_label": True}, datastore)
                logger.info("%d of %d: %s is done", number, len(images), image)
            except TralError as error:
                results[image] = {"error": str(error)}
                logger.warning("%d of %d: %s: %s", number, len(images), image, error)
        return results
