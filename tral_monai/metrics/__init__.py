# SPDX-License-Identifier: Apache-2.0
"""How good a model is, and whether one strategy beats another.

Plain NumPy and SciPy, except `ignite_metric`, which holds what runs inside a training engine.
"""
