# SPDX-License-Identifier: Apache-2.0
"""Rounds in which people answer: regions of slides are asked for, drawn in a viewer, and trained on."""
