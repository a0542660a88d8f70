# SPDX-License-Identifier: Apache-2.0
"""The parts of ``benchmark_inference.py``, one file each; every part has ``run(options) -> list[Table]``."""
