# SPDX-License-Identifier: Apache-2.0
"""Our own error out of the chain that MONAI wraps around it while it builds what a configuration describes."""

from __future__ import annotations

import sys
from types import TracebackType

from tral_monai.errors import TralError


def own_error(error: BaseException | None) -> TralError | None:
    """The error of this package that an error was raised from, directly or over others; None where there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, TralError):
            return error
        seen.add(id(error))
        error = error.__cause__
    return None


def show_own_error_last() -> None:
    """Let a process that dies of an error end with what this package has to say, not with MONAI's last wrapper.

    Without it, the last line of a run with a wrong cohort is "Failed to instantiate component ...", and what is wrong
    stands forty lines above. Calling it again changes nothing.
    """
    if getattr(sys.excepthook, "shows_own_error", False):
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        usual(kind, error, trace)
        own = own_error(error)
        if own is not None and own is not error:
            print(f"\n{type(own).__name__}: {own}", file=sys.stderr)

    hook.shows_own_error = True  # type: ignore[attr-defined]
    sys.excepthook = hook
