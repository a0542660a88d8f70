# SPDX-License-Identifier: Apache-2.0
"""Losses that torch does not have: prototype, evidential and loss prediction."""
