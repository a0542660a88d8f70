# SPDX-License-Identifier: Apache-2.0
"""Readers of annotated nuclei: NuCLS, CoNSeP, CRCHistoPhenotypes, COCO and QuPath files into one in-memory form."""
