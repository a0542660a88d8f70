# SPDX-License-Identifier: Apache-2.0
"""The region proposal network for open-set fields: nuclei without a usable label are neither positive nor negative."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, nms

from tral_monai.networks.nuclei.anchors import CachedAnchors
from tral_monai.networks.nuclei.loss_term import LossTerm
from tral_monai.networks.nuclei.overlap import pairwise_iou
from tral_monai.networks.nuclei.settings import DetectorSettings

Target = dict[str, torch.Tensor]
_SMOOTH_L1_BETA = 1 / 9  # torchvision's


class OpenSetRpn(RegionProposalNetwork):
    """torchvision's region proposal network with three changes.

    - An anchor whose best overlap is with an ignored nucleus (label -1), and at least ``rpn_bg_iou``, is sampled
      neither as positive nor as negative. So is the best anchor of an ignored nucleus.
    - Losses are kept by image.
    - NMS runs over the levels together, and only boxes that enter it are decoded: a nucleus needs one proposal, and on
      a CPU the rest costs more than the network.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        anchors = CachedAnchors(settings.anchor_sizes(), settings.anchor_ratios, strides=settings.level_strides)
        super().__init__(
            anchors,
            RPNHead(settings.fpn_channels, anchors.num_anchors_per_location()[0], conv_depth=settings.rpn_convs),
            settings.rpn_fg_iou,
            settings.rpn_bg_iou,
            settings.rpn_samples,
            settings.rpn_positive_fraction,
            dict(zip(("training", "testing"), settings.rpn_candidates, strict=True)),
            dict(zip(("training", "testing"), settings.proposals, strict=True)),
            settings.rpn_nms_iou,
        )

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[list[torch.Tensor], dict[str, LossTerm]]:
        """Proposals of each image, and the losses where there are targets.

        Args:
            images: The batch.
            features: Levels, fine to coarse.
            targets: ``boxes`` (k, 4) and ``labels`` (k,), -1 ignored, in pixels of the batch.

        Returns:
            (p, 4) proposals per image, best first, and the terms ``loss_objectness`` and ``loss_rpn_box_reg``.
        """
        maps = list(features.values())
        logits_maps, deltas_maps = self.head(maps)
        anchors = self.anchor_generator.anchors(maps)
        per_level = [m.shape[1] * m.shape[2] * m.shape[3] for m in logits_maps]
        logits, deltas = concat_box_prediction_layers(logits_maps, deltas_maps)
        count = len(images.image_sizes)
        logits, deltas = logits.float().view(count, -1), deltas.float().view(count, -1, 4)
        with torch.no_grad():
            proposals = self._proposals(logits.detach(), deltas.detach(), anchors, per_level, images.image_sizes)
        if targets is None:
            return proposals, {}
        return proposals, self._losses(logits, deltas, anchors, targets)

    def label_anchors(self, anchors: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
        """What each anchor of one image is to learn.

        Args:
            anchors: (A, 4).
            target: ``boxes`` and ``labels`` of the image.

        Returns:
            (A,) float: 1 nucleus, 0 background, -1 nothing; and (A,) int64, row of the nucleus it is matched to.
        """
        boxes, classes = target["boxes"], target["labels"]
        if not len(boxes):
            return anchors.new_zeros(len(anchors)), classes.new_zeros(len(anchors))
        quality = pairwise_iou(boxes, anchors)
        matched = self.proposal_matcher(quality)
        # torchvision takes every anchor for the best one of a nucleus that no anchor touches.
        matched[quality.amax(dim=0) == 0] = self.proposal_matcher.BELOW_LOW_THRESHOLD
        row = matched.clamp(min=0)
        labels = (matched >= 0).to(anchors.dtype)
        nothing = (matched == self.proposal_matcher.BETWEEN_THRESHOLDS) | ((matched >= 0) & (classes[row] < 0))
        labels[nothing] = -1.0
        return labels, row

    def _losses(
        self, logits: torch.Tensor, deltas: torch.Tensor, anchors: torch.Tensor, targets: Sequence[Target]
    ) -> dict[str, LossTerm]:
        labels, wanted, counts, images, rows = [], [], [], [], []
        for number, target in enumerate(targets):
            image_labels, matched = self.label_anchors(anchors, target)
            positive, negative = (chosen[0] for chosen in self.fg_bg_sampler([image_labels]))
            chosen = torch.where((positive | negative).bool())[0]
            labels.append(image_labels[chosen])
            boxes = target["boxes"][matched[chosen]] if len(target["boxes"]) else anchors[chosen]
            wanted.append(self.box_coder.encode_single(boxes, anchors[chosen]))
            images.append(torch.full_like(chosen, number))
            rows.append(chosen)
            counts.append(len(chosen))
        image, row, label = torch.cat(images), torch.cat(rows), torch.cat(labels)
        divisor = torch.tensor(counts, device=logits.device)
        objectness = functional.binary_cross_entropy_with_logits(logits[image, row], label, reduction="none")
        box = functional.smooth_l1_loss(
            deltas[image, row], torch.cat(wanted), beta=_SMOOTH_L1_BETA, reduction="none"
        ).sum(dim=1)
        return {
            "loss_objectness": LossTerm.of(objectness, image, divisor),
            "loss_rpn_box_reg": LossTerm.of(box * label, image, divisor),
        }

    def _proposals(
        self,
        logits: torch.Tensor,
        deltas: torch.Tensor,
        anchors: torch.Tensor,
        per_level: Sequence[int],
        sizes: Sequence[tuple[int, int]],
    ) -> list[torch.Tensor]:
        candidates = self._get_top_n_idx(logits, list(per_level))
        scores = logits.gather(1, candidates)
        chosen = deltas.gather(1, candidates[..., None].expand(-1, -1, 4))
        boxes = self.box_coder.decode_single(chosen.reshape(-1, 4), anchors[candidates.reshape(-1)])
        found = []
        for image_boxes, image_scores, size in zip(boxes.view(len(sizes), -1, 4), scores, sizes, strict=True):
            image_boxes = clip_boxes_to_image(image_boxes, size)
            sides = image_boxes[:, 2:] - image_boxes[:, :2]
            usable = (sides >= self.min_size).all(dim=1)
            image_boxes, image_scores = image_boxes[usable], image_scores[usable]
            keep = nms(image_boxes, image_scores, self.nms_thresh)
            found.append(image_boxes[keep[: self.post_nms_top_n()]])
        return found
