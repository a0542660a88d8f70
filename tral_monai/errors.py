# SPDX-License-Identifier: Apache-2.0
"""Every error that the package raises on purpose. A message says what was expected, what came, and what to do."""

from __future__ import annotations


class TralError(Exception):
    """Base of all errors of this package: catch it to catch them all."""


class SlideError(TralError):
    """A slide cannot be used; the message names its file."""


class SlideOpenError(SlideError):
    """No backend can open the file (missing, truncated, unknown format)."""


class SlideReadError(SlideError):
    """A region of an open slide cannot be decoded; the message gives its coordinates."""


class MissingMppError(SlideError):
    """The slide records no micrometres per pixel and none was given."""


class AnnotationError(TralError):
    """An annotation file or one of its shapes cannot be used."""


class UnknownClassError(AnnotationError):
    """A class name matches no rule of the class map."""


class CohortError(TralError):
    """The cohort table is wrong: a missing column, an unknown split, a file that is not there."""


class PatientOverlapError(CohortError):
    """One patient stands on two sides of a split."""


class PoolError(TralError):
    """An id is unknown to the pool or already labelled or rejected."""


class EmptyPoolError(PoolError):
    """Nothing is left to query."""


class RoundSpentError(PoolError):
    """Every region of the round is answered or reserved; the message says what opens the next round."""


class UnknownItemError(TralError):
    """A slide, model, strategy or label that there is not; the message names those that there are."""


class BusyError(TralError):
    """Something of the kind is going on already: wait for it and ask again."""


class StrategyError(TralError):
    """A strategy lacks something it needs, or its scores are not finite."""


class LedgerError(TralError):
    """The ledger on disk contradicts what is being run."""


class CheckpointError(TralError):
    """A checkpoint does not fit the network, its classes or its input contract."""


class ConfigError(TralError):
    """A setting is unknown, missing or out of range."""


class AgreementError(TralError):
    """A faster engine does not give what the reference gives."""


class OutputError(TralError, OSError):
    """A file cannot be written: a full disk, a folder that is missing or not writable; the message names the file."""


class MissingExtraError(TralError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'tral_monai[{extra}]'")
        self.extra = extra
