# SPDX-License-Identifier: Apache-2.0
"""Query strategies: pure functions of the model's outputs on the pool, found by name with `get_strategy`.

`base` holds what a strategy sees and answers, `registry` the names, `allocation` the class quotas of TRI-AL.
"""
