# SPDX-License-Identifier: Apache-2.0
"""Open-set nucleus detectors: Faster R-CNN with prototype, evidential and loss-prediction heads."""
