# SPDX-License-Identifier: Apache-2.0
"""A query strategy as MONAI Label knows it: each "next sample" hands out the next open region of the round's query."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from tral_monai.label_app.client_identity import client_name, peer
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.query import next_region
from tral_monai.rounds.regions.region import AskedRegion
from tral_monai.rounds.regions.site import TaskSite

_REMEMBERED = 100


class ShownRegions:
    """Regions that a client knows by their slide only.

    QuPath asks twice: "next image" opens the slide of the answer and drops its box, then "next patch" asks for a box on
    the open slide. The second question gets the region of the first, so that none is lost between them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, deque[AskedRegion]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def add(self, client: str, asked: AskedRegion) -> None:
        """Remember a region whose slide a client was told."""
        with self._lock:
            self._waiting[client].append(asked)

    def take(self, client: str, slide: str) -> AskedRegion | None:
        """The region of a slide that the client was told first, as it was then; it is forgotten."""
        with self._lock:
            waiting = self._waiting[client]
            for asked in waiting:
                if asked.region.slide == slide:
                    waiting.remove(asked)
                    return asked
        return None


class SiteStrategy(Strategy):
    """One strategy of the registry at a site.

    Args:
        task: the task.
        name: the strategy's name in the registry.
        description: one sentence.
        shown: regions that clients know by their slide, shared by the strategies of a task.
    """

    def __init__(self, task: TaskSite, name: str, description: str, shown: ShownRegions) -> None:
        super().__init__(description)
        self._task, self._name, self._shown = task, name, shown

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Hand out a region.

        Args:
            request: ``image`` (a slide, for a region of it; empty for any) and ``client_id``. The viewer's
                ``patch_size`` does not count: regions have the size that was set for the site.
            datastore: MONAI Label's; not needed.

        Returns:
            ``id`` (the slide), ``bbox`` (x, y, w, h at level 0), ``class_asked``, ``score``, ``reason`` and more.

        Raises:
            RoundSpentError: nothing is open; the message says what to do.
            UnknownItemError: there is no such slide.
        """
        sync_labels(self._task.site, client=peer())
        client, image = client_name(request), str(request.get("image") or "") or None
        key = client or peer()
        asked = self._waiting_on(key, image) if image is not None else None
        if asked is None:
            asked = next_region(self._task, strategy=self._name, client=client, image=image)
            if image is None:
                self._shown.add(key, asked)
        return _answer(self._task, asked)

    def _waiting_on(self, key: str, image: str) -> AskedRegion | None:
        """A region of this slide that the client has been told the slide of, if it is still the client's."""
        catalog = self._task.catalog
        patch = catalog.patch_origin(image)
        slide = patch.slide if patch is not None else catalog.find(image).name
        while (told := self._shown.take(key, slide)) is not None:
            seconds = 60 * self._task.site.settings.reserve_minutes
            with self._task.ledger() as ledger:
                if told.round != ledger.round:
                    continue
                held = told.reserved_by or key
                asked = ledger.renew(told.region.id, held, until_s=told.reserved_until, seconds=seconds)
            if asked is not None:
                return asked
        return None


def _answer(task: TaskSite, asked: AskedRegion) -> dict[str, Any]:
    return {
        "id": task.catalog.client_id(asked.region.slide),
        "bbox": list(asked.region.bbox_level0),
        "score": asked.score,
        "class_asked": asked.class_asked,
        "reason": asked.reason,
        "purpose": asked.purpose,
        "task": task.name,
        "round": asked.round,
        "number_in_round": asked.rank + 1,
        "reserved_until": int(asked.reserved_until),
    }
