# SPDX-License-Identifier: Apache-2.0
"""The active-learning loop: engine, handlers, oracles and the ledger that decides."""
