# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app: a server behind QuPath, 3D Slicer, CVAT and DSA that asks, takes labels in, trains, infers."""
