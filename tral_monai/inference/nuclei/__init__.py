# SPDX-License-Identifier: Apache-2.0
"""Slides and fields to nuclei: detection in tiles, joining across seams, files that QuPath opens."""
