# SPDX-License-Identifier: Apache-2.0
"""OpenSetRCNN: Faster R-CNN for fields in which some nuclei belong to no class that is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tral_monai.errors import AnnotationError, CheckpointError, ConfigError
from tral_monai.losses.loss_prediction import loss_prediction_loss
from tral_monai.networks.backbones import default_normalization, resolve_backbone
from tral_monai.networks.normalization import NormalizationLike, resolve_normalization
from tral_monai.networks.nuclei.backbone import FpnBackbone
from tral_monai.networks.nuclei.class_head import ClassHead, EvidentialHead, SoftmaxHead
from tral_monai.networks.nuclei.detector_contract import DetectorContract, check_detector_contract
from tral_monai.networks.nuclei.fixed_scale import FixedScaleTransform
from tral_monai.networks.nuclei.loss_prediction import LossPrediction
from tral_monai.networks.nuclei.loss_term import LossTerm
from tral_monai.networks.nuclei.prototypes import Prototypes
from tral_monai.networks.nuclei.region_proposals import OpenSetRpn
from tral_monai.networks.nuclei.roi_heads import OpenSetRoiHeads, Regions
from tral_monai.networks.nuclei.settings import HEADS, ROLES, DetectorSettings, Head, Role, detector_settings
from tral_monai.networks.seeding import seeded

Target = dict[str, torch.Tensor]


class OpenSetRCNN(nn.Module):
    """Faster R-CNN with feature pyramid on torchvision's parts, in the three roles of open-set active learning.

    - ``"target"`` detects the K known classes. Unknown nuclei (label -1) are neither positive nor negative.
    - ``"prototype"`` is OSAL-ND's auxiliary detector of {known, unknown}: softmax head, learnable prototypes and the
      prototype loss (Eqs. 1 and 2) on foreground RoIs.
    - ``"k_plus_one"`` is LfOSA's: K classes and "unknown", cross-entropy on logits over a temperature.

    Images are raw RGB fields of view; the network normalises inside. They are never resized, only enlarged by the fixed
    ``upsample``.

    Args:
        classes: Known class names in order, in every role.
        role: See above.
        head: Class head of a target detector: ``"evidential"`` (foreground sigmoid and K-way evidence), or
            ``"softmax"`` (the paper's: cross-entropy over background and K, evidence by ReLU of the K logits). Other
            roles have a softmax head.
        loss_prediction: Add LL4AL's loss prediction module.
        backbone: ``torchvision:resnet50``, ``torchvision:resnet18``, ``torchvision:mobilenet_v3_large``, any
            ``timm:NAME`` with feature maps, or a bare name. Resolved as in
            :func:`tral_monai.networks.backbones.resolve_backbone`.
        pretrained_path: Weights of the backbone: a file, ``package:NAME``, or None for random weights. With weights,
            batch normalisation is frozen.
        frozen_batch_norm: Freeze it in any case. None: only with weights.
        normalization: As for TriCNN; ``"auto"`` is what the backbone's own weights expect.
        class_colors: RGB of each class for overlays and reports; kept in checkpoints.
        seed: Seed of the random weights; leaves PyTorch's global generator untouched. None uses the global generator.
        settings: All sizes and thresholds, see :class:`~tral_monai.networks.nuclei.settings.DetectorSettings`.

    Attributes:
        outputs: Names of the output classes: ``classes``, (known, unknown) or ``classes`` and unknown.
        progress: Share of training that is done, 0 to 1; whoever trains sets it. LL4AL's module is detached by it.
        settings: Sizes and thresholds.

    Raises:
        ConfigError: A setting is unknown or out of range.
        CheckpointError: ``pretrained_path`` does not fit.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        role: Role = "target",
        head: Head = "evidential",
        loss_prediction: bool = False,
        backbone: str = "torchvision:resnet50",
        pretrained_path: str | os.PathLike[str] | None = None,
        frozen_batch_norm: bool | None = None,
        normalization: NormalizationLike = "auto",
        class_colors: Mapping[str, Sequence[int]] | None = None,
        seed: int | None = None,
        **settings: object,
    ) -> None:
        super().__init__()
        if role not in ROLES:
            raise ConfigError(f"role must be one of {list(ROLES)}, but is {role!r}")
        if head not in HEADS:
            raise ConfigError(f"head must be one of {list(HEADS)}, but is {head!r}")
        self.classes = _checked_classes(classes)
        self.role: Role = role
        self.head: Head = head if role == "target" else "softmax"
        self.outputs = _outputs(role, self.classes)
        self.settings = sizes = detector_settings(settings)
        self.backbone_name = resolve_backbone(backbone)
        self.normalization = resolve_normalization(normalization, auto=default_normalization(self.backbone_name))
        self.class_colors = {name: tuple(int(v) for v in color) for name, color in (class_colors or {}).items()}
        self.progress = 0.0
        with seeded(seed):
            self.backbone = FpnBackbone(
                self.backbone_name,
                strides=sizes.strides,
                channels=sizes.fpn_channels,
                pool_level=sizes.pool_level,
                pretrained_path=pretrained_path,
                frozen_batch_norm=frozen_batch_norm,
                frozen_stages=sizes.frozen_stages,
            )
            self.transform = FixedScaleTransform(
                self.normalization, upsample=sizes.upsample, size_divisible=sizes.strides[-1]
            )
            self.rpn = OpenSetRpn(sizes)
            prototypes = None
            if role == "prototype":
                prototypes = Prototypes(
                    sizes.representation, projection=sizes.projection, margin=sizes.prototype_margin
                )
            self.roi_heads = OpenSetRoiHeads(
                sizes,
                class_head=_class_head(self.head, role, sizes, len(self.outputs)),
                classes=len(self.outputs),
                prototypes=prototypes,
            )
            self.loss_prediction: LossPrediction | None = None
            if loss_prediction:
                self.loss_prediction = LossPrediction(sizes.fpn_channels, len(sizes.strides))
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_contract(cls, contract: Mapping[str, Any]) -> OpenSetRCNN:
        """Builds the detector that a checkpoint's contract describes, with random weights.

        Args:
            contract: ``network.contract.state_dict()`` of the network that was saved.

        Raises:
            CheckpointError: The contract is not one, or names something that this installation lacks.
        """
        read = check_detector_contract(contract)
        keys = ("role", "head", "loss_prediction", "backbone", "frozen_batch_norm", "normalization", "class_colors")
        try:
            return cls(read["classes"], seed=0, **{key: read[key] for key in keys}, **read["settings"])
        except ConfigError as error:
            raise CheckpointError(f"no detector can be built from the checkpoint's contract: {error}") from error

    @property
    def prototypes(self) -> Prototypes | None:
        """The prototypes of an auxiliary detector, else None."""
        found: Prototypes | None = self.roi_heads.prototypes
        return found

    @property
    def contract(self) -> DetectorContract:
        """What belongs beside the weights in a checkpoint."""
        return DetectorContract(self)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.transform.mean.device

    def forward(
        self, images: Sequence[torch.Tensor], targets: Sequence[Mapping[str, torch.Tensor]] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Losses where there are targets, else detections.

        Args:
            images: (3, h, w) uint8 or float on the scale 0 to 255 each; sizes may differ.
            targets: For each image ``boxes`` (k, 4) float and ``labels`` (k,) int64 as
                :class:`~tral_monai.data.nuclei.dataset.NucleusDataset` gives them for this role.

        Returns:
            With targets, a dict of () losses to be summed. Without (evaluation mode only), for each image a dict of
            ``boxes``, ``labels`` (0 to K - 1) and ``scores``; :func:`tral_monai.networks.nuclei.detect.detect` gives
            more.

        Raises:
            ConfigError: No image, or training without targets.
            AnnotationError: A box has no area, or a label is out of range.
        """
        if not len(images):
            raise ConfigError("a detector needs at least one image, but the batch is empty")
        if targets is not None:
            return self._losses(images, self._checked(targets, len(images)))
        if self.training:
            raise ConfigError("training needs targets (boxes and labels), but got none; call eval() to detect")
        regions, _ = self.regions(images)
        found = []
        for row, image in enumerate(images):
            here = regions.image == row
            boxes = self.transform.unscale_boxes(regions.boxes[here], image)
            found.append({"boxes": boxes, "labels": regions.labels[here], "scores": regions.scores[here]})
        return found

    def regions(self, images: Sequence[torch.Tensor]) -> tuple[Regions, torch.Tensor]:
        """Final boxes of a batch with everything that led to them; boxes and proposals in pixels of the images.

        Args:
            images: See :meth:`forward`.

        Returns:
            The boxes, and (n, levels, channels) pooled pyramid levels.
        """
        batch, _ = self.transform(images)
        levels = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, levels)
        regions = self.roi_heads.detect(levels, proposals, batch.image_sizes)
        return regions, self._pooled(levels, batch.image_sizes)

    def features_at(self, images: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """RoI features at given boxes.

        Args:
            images: See :meth:`forward`.
            boxes: (k, 4) per image in its pixels.

        Returns:
            (sum k, D).
        """
        batch, _ = self.transform(images)
        scaled = [self.transform.scale_boxes(b, image) for b, image in zip(boxes, images, strict=True)]
        return self.roi_heads.features(self.backbone(batch.tensors), scaled, batch.image_sizes)

    def _losses(self, images: Sequence[torch.Tensor], targets: Sequence[Target]) -> dict[str, torch.Tensor]:
        batch, scaled = self.transform(images, targets)
        levels = self.backbone(batch.tensors)
        proposals, terms = self.rpn(batch, levels, scaled)
        roi_terms, prototype_term = self.roi_heads.losses(levels, proposals, batch.image_sizes, scaled)
        terms |= roi_terms
        losses = {name: term.batch() for name, term in terms.items()}
        if prototype_term is not None:
            losses["loss_prototype"] = self.settings.prototype_weight * prototype_term.batch()
        if self.loss_prediction is not None:
            pooled = self._pooled(levels, batch.image_sizes)
            losses["loss_prediction"] = self._prediction_loss(pooled, terms.values())
        return losses

    def _prediction_loss(self, pooled: torch.Tensor, terms: Iterable[LossTerm]) -> torch.Tensor:
        assert self.loss_prediction is not None
        if self.progress >= self.settings.detach_at:
            pooled = pooled.detach()
        per_image = torch.stack([term.per_image() for term in terms]).sum(dim=0)
        ranking = loss_prediction_loss(self.loss_prediction(pooled), per_image.detach())
        return self.settings.loss_prediction_weight * ranking

    def _pooled(self, levels: dict[str, torch.Tensor], sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """(n, levels, channels) means over the part of each map that shows the image.

        With the padding, which depends on the other images of the batch, an image would have other features there.
        """
        return torch.stack(
            [
                _means(levels[str(s)].float(), [(-(-h // s), -(-w // s)) for h, w in sizes])
                for s in self.settings.strides
            ],
            dim=1,
        )

    def _checked(self, targets: Sequence[Mapping[str, torch.Tensor]], images: int) -> list[Target]:
        if len(targets) != images:
            raise ConfigError(f"each image needs one target, but there are {images} images and {len(targets)} targets")
        checked = []
        for row, target in enumerate(targets):
            boxes, labels = target["boxes"].to(self.device), target["labels"].to(self.device)
            name = f"field {int(target['id'])}" if "id" in target else f"image {row} of the batch"
            if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
                raise AnnotationError(
                    f"{name} must have boxes (k, 4) and labels (k,), but has {tuple(boxes.shape)} and "
                    f"{tuple(labels.shape)}"
                )
            if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
                bad = boxes[(boxes[:, 2:] <= boxes[:, :2]).any(dim=1)][0].tolist()
                raise AnnotationError(f"{name} has a box without area, xmin, ymin, xmax, ymax = {bad}; remove it")
            if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) <= len(self.outputs):
                raise AnnotationError(
                    f"{name} has labels from {int(labels.min())} to {int(labels.max())}, but a detector of role "
                    f"{self.role!r} takes -1 (ignored) and 1 to {len(self.outputs)} {list(self.outputs)}; "
                    "make the data set with the same classes and role"
                )
            checked.append({"boxes": boxes, "labels": labels})
        return checked


def _class_head(head: Head, role: Role, sizes: DetectorSettings, classes: int) -> ClassHead:
    if head == "softmax":
        temperature = sizes.temperature if role == "k_plus_one" else 1.0
        return SoftmaxHead(sizes.representation, classes, temperature=temperature)
    return EvidentialHead(
        sizes.representation,
        classes,
        activation=sizes.evidence,
        data_term=sizes.evidential_data_term,
        annealing_steps=sizes.annealing_steps,
    )


def _means(maps: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
    """(n, channels) means of maps (n, channels, h, w) over the upper left (rows, columns) of each."""
    if len(set(sizes)) == 1:  # one operation for all
        rows, columns = sizes[0]
        return maps[:, :, :rows, :columns].mean(dim=(2, 3))
    return torch.stack(
        [one[:, :rows, :columns].mean(dim=(1, 2)) for one, (rows, columns) in zip(maps, sizes, strict=True)]
    )


def _outputs(role: Role, classes: tuple[str, ...]) -> tuple[str, ...]:
    if role == "prototype":
        return ("known", "unknown")
    return (*classes, "unknown") if role == "k_plus_one" else classes


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(classes, str) else tuple(classes)
    if not names or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"classes must be a list of at least one name, but is {classes!r}")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"classes must differ, but {', '.join(twice)} stands more than once in {list(names)!r}")
    return names
