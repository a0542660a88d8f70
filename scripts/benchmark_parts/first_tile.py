# SPDX-License-Identifier: Apache-2.0
"""A handler for the start-up part's bundle run: says when the first module is called for the first tile."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook


class FirstTile:
    """Prints wall-clock time and CPU seconds of the process when any module is called first, then is gone."""

    def attach(self, engine: Any) -> None:
        """Start listening.

        Args:
            engine: the evaluator; nothing of it is used.
        """
        handle: Any = None

        def called(module: Any, inputs: Any) -> None:
            handle.remove()
            found = {"first_tile_at": time.time(), "cpu_s": time.process_time()}
            print("\n" + json.dumps(found), file=sys.stdout, flush=True)

        handle = register_module_forward_pre_hook(called)
