# SPDX-License-Identifier: Apache-2.0
"""A detector for one tile of one size, written so that a tracer sees every step and takes no count for constant."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import nms

from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

_MIN_SIDE_PX = 1e-2  # as in OpenSetRoiHeads.detect


class OneTileDetector(nn.Module):
    """What :func:`tral_monai.networks.nuclei.detect.detect` says of one tile of a fixed size.

    ``OpenSetRCNN`` loops over the images of a batch and the boxes of each; a trace of it would hold the counts of the
    tile that it was traced with. Here is one image, and nothing is counted.

    Args:
        network: the detector.
        tile_px: side of the tile.
    """

    def __init__(self, network: OpenSetRCNN, tile_px: int) -> None:
        super().__init__()
        self.network = network
        self.tile_px = tile_px
        size = network.transform.scaled_size(torch.empty(3, tile_px, tile_px))
        self.size = (int(size[0]), int(size[1]))
        stride = network.transform.size_divisible
        self.padding = (0, -self.size[1] % stride, 0, -self.size[0] % stride)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Nuclei of a tile, best first.

        Args:
            image: (3, tile_px, tile_px) uint8.

        Returns:
            ``boxes`` (n, 4) float32, xmin, ymin, xmax, ymax in pixels of the tile; ``labels`` (n,) int64, 0 to K - 1;
            ``scores`` (n,) float32; ``probabilities`` (n, 1 + K) float32, background first; ``evidence`` (n, K)
            float32.
        """
        network, heads, size = self.network, self.network.roi_heads, self.size
        transform = network.transform
        rgb = (image[None].to(transform.mean.dtype) - transform.mean) / transform.std
        if size != (self.tile_px, self.tile_px):
            rgb = functional.interpolate(rgb, size=size, mode="bilinear", align_corners=False)
        rgb = functional.pad(rgb, self.padding)
        levels = network.backbone(rgb)
        (proposals,), _ = network.rpn(ImageList(rgb, [size]), levels)
        features = heads.box_head(heads.box_roi_pool(levels, [proposals], [size]))
        logits = heads.box_predictor(features)
        probabilities = heads.box_predictor.probabilities(logits)

        roi, label = torch.where(probabilities[:, 1:] > heads.score_thresh)
        score = probabilities[roi, label + 1]
        columns = torch.zeros_like(label) if heads.boxes_per_roi == 1 else label
        deltas = heads.box_regression(features).float().view(-1, heads.boxes_per_roi, 4)[roi, columns]
        boxes = heads.box_coder.decode_single(deltas, proposals[roi])
        limits = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        usable = torch.where(((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PX).all(dim=1))[0]
        roi, label, score, boxes = roi[usable], label[usable], score[usable], boxes[usable]
        apart = boxes if heads.class_agnostic_nms else boxes + (label * (max(size) + 1))[:, None]
        keep = nms(apart, score, heads.nms_thresh)[: heads.detections_per_img]
        roi = roi[keep]
        return (
            boxes[keep] * (self.tile_px / size[0]),
            label[keep],
            score[keep],
            probabilities[roi],
            heads.box_predictor.evidence(logits[roi]),
        )
