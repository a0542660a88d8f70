# SPDX-License-Identifier: Apache-2.0
"""The pool: which samples are labelled, rejected or still open, and which group each belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import PoolError

_UNLABELLED, _LABELLED, _REJECTED = 0, 1, 2
_STATE_NAMES = ("unlabelled", "labelled", "rejected")


class Pool:
    """Ids that a strategy may choose from, each unlabelled, labelled or rejected.

    Args:
        ids: unique sample ids, in any order.
        groups: optional columns of the same length, such as ``{"slide": [...], "patient": [...]}``.

    Raises:
        PoolError: an id stands twice, or a group column has another length than ``ids``.
    """

    def __init__(self, ids: Sequence[int] | npt.NDArray[np.int64], groups: Mapping[str, Sequence[str]] | None = None):
        self._ids = np.asarray(ids, dtype=np.int64)
        if self._ids.ndim != 1:
            raise PoolError(f"pool ids must be one-dimensional, but have shape {self._ids.shape}")
        order = np.argsort(self._ids, kind="stable")
        self._sorted, self._order = self._ids[order], order
        repeated = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        if repeated.size:
            raise PoolError(f"pool ids must be unique, but {int(repeated[0])} stands more than once")
        self._groups = {name: np.asarray(column, dtype=object) for name, column in (groups or {}).items()}
        for name, column in self._groups.items():
            if column.shape != self._ids.shape:
                raise PoolError(f"group '{name}' has {column.size} entries for {self._ids.size} ids")
        self._state = np.zeros(self._ids.size, dtype=np.uint8)

    def __len__(self) -> int:
        return int(self._ids.size)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """All ids in the order given, shape (n,)."""
        return self._ids.copy()

    @property
    def unlabelled(self) -> npt.NDArray[np.int64]:
        """Ids still open, in the pool's order."""
        return self._ids[self._state == _UNLABELLED]

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Ids with a label, in the pool's order."""
        return self._ids[self._state == _LABELLED]

    @property
    def rejected(self) -> npt.NDArray[np.int64]:
        """Ids that the annotator declined to label, in the pool's order."""
        return self._ids[self._state == _REJECTED]

    def group(self, name: str, ids: Iterable[int]) -> npt.NDArray[np.object_]:
        """The group of each id, for example its patient.

        Raises:
            PoolError: the pool has no such group, or an id is unknown.
        """
        if name not in self._groups:
            raise PoolError(f"the pool has no group '{name}'; it has {sorted(self._groups)}")
        return self._groups[name][self._positions(ids)]

    def label(self, ids: Iterable[int]) -> None:
        """Mark ids as labelled; all or none of them are marked.

        Raises:
            PoolError: an id is unknown, given twice, or not open any more.
        """
        self._move(ids, _LABELLED)

    def reject(self, ids: Iterable[int]) -> None:
        """Mark ids as rejected: they are never queried again. All or none of them are marked.

        Raises:
            PoolError: an id is unknown, given twice, or not open any more.
        """
        self._move(ids, _REJECTED)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to restore the labelling: the labelled and the rejected ids."""
        return {"labelled": self.labelled.tolist(), "rejected": self.rejected.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a labelling that :meth:`state_dict` gave.

        Raises:
            PoolError: the state names ids that this pool does not hold; the pool is then unchanged.
        """
        labelled, rejected = self._positions(state["labelled"]), self._positions(state["rejected"])
        self._state[:] = _UNLABELLED
        self._state[labelled] = _LABELLED
        self._state[rejected] = _REJECTED

    def _move(self, ids: Iterable[int], to: int) -> None:
        positions = self._positions(ids)
        if np.unique(positions).size != positions.size:
            raise PoolError("an id is given twice in one call")
        closed = positions[self._state[positions] != _UNLABELLED]
        if closed.size:
            first = closed[0]
            raise PoolError(f"id {int(self._ids[first])} is already {_STATE_NAMES[self._state[first]]}")
        self._state[positions] = to

    def _positions(self, ids: Iterable[int]) -> npt.NDArray[np.intp]:
        wanted = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64)
        found = np.searchsorted(self._sorted, wanted)
        inside = np.minimum(found, max(len(self) - 1, 0))
        unknown = wanted[self._sorted[inside] != wanted] if len(self) else wanted
        if unknown.size:
            raise PoolError(f"id {int(unknown[0])} is not in the pool of {len(self)} ids")
        return self._order[inside]
