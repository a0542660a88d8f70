# SPDX-License-Identifier: Apache-2.0
"""Query strategies that choose fields of view by what detectors found in them. One per file."""
