# SPDX-License-Identifier: Apache-2.0
"""What runs a network: torch itself, torch.compile, ONNX Runtime, OpenVINO, or TensorRT; and how well they agree."""
