# SPDX-License-Identifier: Apache-2.0
"""The second stage: features of proposals, what each is, where its box is, and which boxes remain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign, nms
from torchvision.ops.poolers import initLevelMapper

from tral_monai.networks.nuclei.class_head import ClassHead
from tral_monai.networks.nuclei.loss_term import LossTerm
from tral_monai.networks.nuclei.overlap import pairwise_iou
from tral_monai.networks.nuclei.prototypes import Prototypes
from tral_monai.networks.nuclei.settings import DetectorSettings

Target = dict[str, torch.Tensor]
Sizes = Sequence[tuple[int, int]]
_SMOOTH_L1_BETA = 1 / 9  # torchvision's
_MIN_SIDE_PX = 1e-2  # torchvision's


@dataclass(frozen=True)
class Regions:
    """Final boxes of a batch, image by image, best first.

    Args:
        image: (B,) int64, image of each box.
        boxes: (B, 4) in pixels of the batch.
        labels: (B,) int64, 0 to K - 1.
        scores: (B,).
        probabilities: (B, 1 + K), column 0 background.
        logits: (B, 1 + K) of the class head.
        proposals: (B, 4) the proposal that each box was regressed from.
        features: (B, D) RoI features.
    """

    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor
    probabilities: torch.Tensor
    logits: torch.Tensor
    proposals: torch.Tensor
    features: torch.Tensor


class OpenSetRoiHeads(RoIHeads):
    """torchvision's RoI heads with exchangeable class heads, ignored nuclei, losses by image and traceable boxes.

    A proposal whose best overlap is with an ignored nucleus (label -1), and at least ``roi_bg_iou``, is sampled neither
    as foreground nor as background.

    Args:
        settings: Sizes.
        class_head: What a RoI is.
        classes: K.
        prototypes: Of the auxiliary detector, else None.
    """

    def __init__(
        self, settings: DetectorSettings, *, class_head: ClassHead, classes: int, prototypes: Prototypes | None
    ) -> None:
        pool = MultiScaleRoIAlign([str(s) for s in settings.strides], settings.roi_size, settings.roi_sampling_ratio)
        # torchvision infers both from the first batch and goes wrong where that is a small, much padded image.
        pool.scales = [1.0 / stride for stride in settings.strides]
        pool.map_levels = initLevelMapper(int(math.log2(settings.strides[0])), int(math.log2(settings.strides[-1])))
        super().__init__(
            pool,
            TwoMLPHead(settings.fpn_channels * settings.roi_size**2, settings.representation),
            class_head,
            settings.roi_fg_iou,
            settings.roi_bg_iou,
            settings.roi_samples,
            settings.roi_positive_fraction,
            None,
            settings.score_threshold,
            settings.nms_iou,
            settings.max_detections,
        )
        self.class_agnostic_nms = settings.class_agnostic_nms
        self.prototypes = prototypes
        self.prototype_weight = settings.prototype_weight
        self.boxes_per_roi = 1 if settings.class_agnostic_regression else classes
        self.box_regression = nn.Linear(settings.representation, 4 * self.boxes_per_roi)
        nn.init.normal_(self.box_regression.weight, std=0.001)
        nn.init.zeros_(self.box_regression.bias)

    def features(self, levels: dict[str, torch.Tensor], boxes: list[torch.Tensor], sizes: Sizes) -> torch.Tensor:
        """RoI features of boxes.

        Args:
            levels: The feature pyramid.
            boxes: (k, 4) per image in pixels of the batch.
            sizes: (height, width) of each image without padding.

        Returns:
            (sum k, D).
        """
        if not sum(len(b) for b in boxes):
            return next(iter(levels.values())).new_zeros(0, self.box_head.fc7.out_features)
        return self.box_head(self.box_roi_pool(levels, boxes, list(sizes)))

    def label_proposals(self, proposals: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
        """What each proposal of one image is to learn.

        Args:
            proposals: (p, 4).
            target: ``boxes`` and ``labels`` of the image.

        Returns:
            (p,) int64: 1 to K, 0 background, -1 nothing; and (p,) int64, row of the nucleus it is matched to.
        """
        boxes, classes = target["boxes"], target["labels"]
        if not len(boxes) or not len(proposals):
            nothing = classes.new_zeros(len(proposals))
            return nothing, nothing.clone()
        matched = self.proposal_matcher(pairwise_iou(boxes, proposals))
        row = matched.clamp(min=0)
        labels = classes[row]
        labels = labels.masked_fill(matched == self.proposal_matcher.BELOW_LOW_THRESHOLD, 0)
        return labels.masked_fill(matched == self.proposal_matcher.BETWEEN_THRESHOLDS, -1), row

    def losses(
        self,
        levels: dict[str, torch.Tensor],
        proposals: Sequence[torch.Tensor],
        sizes: Sizes,
        targets: Sequence[Target],
    ) -> tuple[dict[str, LossTerm], LossTerm | None]:
        """Losses of the class head and the boxes, and the prototype loss if there are prototypes.

        Args:
            levels: The feature pyramid.
            proposals: Per image. The nuclei's own boxes are added to them.
            sizes: (height, width) of each image without padding.
            targets: ``boxes`` and ``labels`` in pixels of the batch.
        """
        sampled, labels, wanted = [], [], []
        for own, target in zip(proposals, targets, strict=True):
            candidates = torch.cat([own, target["boxes"][target["labels"] > 0].to(own)])
            found, matched = self.label_proposals(candidates, target)
            positive, negative = (chosen[0] for chosen in self.fg_bg_sampler([found]))
            chosen = torch.where((positive | negative).bool())[0]
            boxes = candidates[chosen]
            sampled.append(boxes)
            labels.append(found[chosen])
            matched_boxes = target["boxes"].to(own)[matched[chosen]] if len(target["boxes"]) else boxes
            wanted.append(self.box_coder.encode_single(matched_boxes, boxes))
        features = self.features(levels, sampled, sizes)
        label, count = torch.cat(labels), len(sampled)
        image = torch.arange(count, device=label.device).repeat_interleave(
            torch.tensor([len(b) for b in sampled], device=label.device)
        )
        terms = self.box_predictor.losses(self.box_predictor(features), label, image, count)
        inside = torch.where(label > 0)[0]
        deltas = self._deltas(features[inside], label[inside] - 1)
        values = functional.smooth_l1_loss(deltas, torch.cat(wanted)[inside], beta=_SMOOTH_L1_BETA, reduction="none")
        divisor = torch.bincount(image, minlength=count)
        terms["loss_box_reg"] = LossTerm.of(values.sum(dim=1), image[inside], divisor)
        if self.prototypes is None:
            return terms, None
        return terms, self.prototypes.losses(features, label, image, count)

    def detect(self, levels: dict[str, torch.Tensor], proposals: Sequence[torch.Tensor], sizes: Sizes) -> Regions:
        """Final boxes: above the score threshold, after NMS, at most ``max_detections`` per image.

        Args:
            levels: The feature pyramid.
            proposals: Per image.
            sizes: (height, width) of each image without padding.
        """
        features = self.features(levels, list(proposals), sizes)
        logits = self.box_predictor(features)
        probabilities = self.box_predictor.probabilities(logits)
        every = torch.cat(list(proposals))
        counts = torch.tensor([len(p) for p in proposals], device=every.device)
        image_of_roi = torch.arange(len(counts), device=every.device).repeat_interleave(counts)

        roi, label = torch.where(probabilities[:, 1:] > self.score_thresh)
        score = probabilities[roi, label + 1]
        boxes = self.box_coder.decode_single(self._deltas(features, None)[roi, label], every[roi])
        limits = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=boxes.dtype, device=boxes.device)
        boxes = torch.minimum(boxes.clamp(min=0), limits[image_of_roi[roi]])
        usable = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PX).all(dim=1)
        roi, label, score, boxes = roi[usable], label[usable], score[usable], boxes[usable]
        image = image_of_roi[roi]
        # Boxes of different classes are moved apart, so that they do not suppress each other.
        apart = boxes if self.class_agnostic_nms else boxes + (label * (limits.max() + 1))[:, None]
        kept, start = [], 0
        for number in torch.bincount(image, minlength=len(counts)).tolist():
            part = slice(start, start + number)
            kept.append(start + nms(apart[part], score[part], self.nms_thresh)[: self.detections_per_img])
            start += number
        keep = torch.cat(kept)
        roi = roi[keep]
        return Regions(
            image=image[keep],
            boxes=boxes[keep],
            labels=label[keep],
            scores=score[keep],
            probabilities=probabilities[roi],
            logits=logits[roi],
            proposals=every[roi],
            features=features[roi],
        )

    def _deltas(self, features: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """(m, 4) box offsets for given classes, or (m, K, 4) for all."""
        deltas = self.box_regression(features).float().view(len(features), self.boxes_per_roi, 4)
        if labels is not None:
            column = torch.zeros_like(labels) if self.boxes_per_roi == 1 else labels
            return deltas[torch.arange(len(deltas), device=deltas.device), column]
        return deltas.expand(-1, self.box_predictor.linear.out_features - 1, 4)
