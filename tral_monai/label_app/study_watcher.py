# SPDX-License-Identifier: Apache-2.0
"""What follows when something changes in the studies folder while the server runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tral_monai.errors import TralError
from tral_monai.label_app.debounce import Debounced
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.label_file import label_stem
from tral_monai.rounds.regions.site import AnnotationSite

logger = logging.getLogger(__name__)

QUIET_S = 2.0
"""Seconds without a change after which dropped-in label files are taken in: they may come in parts."""


class StudyWatcher:
    """Answers the events of a file watcher. No error gets out: it would end the watching.

    Args:
        site: the site.
        remarks: reads the datastore's own file again.
        remarks_name: name of this file in the studies folder.
        refresh: lists images and labels again.
        quiet_s: seconds without a change after which label files are taken into the ledgers.
    """

    def __init__(
        self,
        site: AnnotationSite,
        *,
        remarks: Callable[[], None],
        remarks_name: str,
        refresh: Callable[[], None],
        quiet_s: float = QUIET_S,
    ) -> None:
        self._site, self._remarks, self._refresh = site, remarks, refresh
        self._remarks_file = site.studies / remarks_name
        self._labels = Debounced(lambda: _quietly(self._take_labels_in, "label files were not taken in"), quiet_s)

    def changed(self, event: Any) -> None:
        """A file was made, moved or deleted."""
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, getattr(event, "dest_path", "")) if path]
        if self._remarks_file in paths:
            self._read_remarks()
        elif not all(path.name.startswith(".") for path in paths):
            _quietly(self._refresh, "the studies folder was not read again")
            self._report_labels(paths)

    def modified(self, event: Any) -> None:
        """A file was written to."""
        path = Path(os.fsdecode(event.src_path))
        if path == self._remarks_file:
            self._read_remarks()
        else:
            self._report_labels([path])

    def _read_remarks(self) -> None:
        _quietly(self._remarks, "the studies folder was not read again")

    def _report_labels(self, paths: Iterable[Path]) -> None:
        folders = (self._site.labels_dir, self._site.studies)
        if any(path.parent in folders and label_stem(path.name) is not None for path in paths):
            self._labels.report()

    def _take_labels_in(self) -> None:
        for report in sync_labels(self._site).values():
            if report.changed:
                logger.info("%s", report.message)


def _quietly(act: Callable[[], object], what: str) -> None:
    try:
        act()
    except (TralError, OSError) as error:
        logger.warning("%s: %s", what, error)
