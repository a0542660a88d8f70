# SPDX-License-Identifier: Apache-2.0
"""The sizes of a detector: everything that its checkpoint must record so that it can be rebuilt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from tral_monai.errors import ConfigError

Role = Literal["target", "prototype", "k_plus_one"]
Head = Literal["evidential", "softmax"]
ROLES = ("target", "prototype", "k_plus_one")
HEADS = ("evidential", "softmax")

# Nuclei are 3 to 20 micrometres across: 12 to 80 px at 0.25 micrometres per pixel.
_NUCLEUS_UM = (3.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """Sizes and thresholds of an :class:`~tral_monai.networks.nuclei.open_set_rcnn.OpenSetRCNN`.

    The defaults are torchvision's Faster R-CNN with ResNet-50 FPN (the paper names no others), with anchors for nuclei
    and 300 detections.

    Args:
        strides: Strides of the feature maps that the feature pyramid is built on, powers of 2, ascending.
        fpn_channels: Channels of every pyramid level.
        pool_level: One more, coarser level by max pooling, for proposals only.
        frozen_stages: The backbone is frozen up to where its maps have stride 2 ** frozen_stages; 0 freezes nothing.
        upsample: Images are enlarged by this factor before the backbone. Never resized otherwise.
        fov_mpp: Micrometres per pixel of the images.
        fov_px: Side of the fields of view that it was trained on; recorded only.
        anchor_sizes_px: Sides of square anchors in pixels of the image (before ``upsample``), one list per level. None:
            evenly spaced on a log scale from 3 to 20 micrometres, one size per level if there are five, else two.
        anchor_ratios: Height over width of the anchors.
        rpn_convs: 3 x 3 convolutions of the proposal head.
        rpn_fg_iou: Anchors with at least this overlap with a nucleus are positive.
        rpn_bg_iou: Anchors below this overlap with every nucleus are negative; in between they count for nothing.
        rpn_samples: Anchors per image that the loss is taken over.
        rpn_positive_fraction: At most this share of them is positive.
        rpn_candidates: Anchors per level that enter the proposals' NMS: (training, inference).
        proposals: Proposals per image that are kept: (training, inference).
        rpn_nms_iou: Overlap at which a proposal is dropped.
        roi_size: Side of the grid that RoIAlign samples.
        roi_sampling_ratio: Samples per cell and direction.
        roi_fg_iou: Proposals with at least this overlap with a nucleus are foreground.
        roi_bg_iou: Proposals below it are background; in between they count for nothing.
        roi_samples: Proposals per image that the loss is taken over.
        roi_positive_fraction: At most this share of them is foreground.
        representation: D, length of a RoI feature (two fully connected layers).
        class_agnostic_regression: One box for all classes instead of one box each.
        score_threshold: Detections below it are dropped.
        nms_iou: Overlap at which a detection is dropped for a better one of the same class.
        class_agnostic_nms: Or for a better one of any class; NuCLS does so at ``nms_iou`` 0.2.
        max_detections: Per image, the best.
        evidence: ``"softplus"`` or ``"relu"``, what turns logits to evidence in the evidential head. The softmax head
            always uses ReLU, as the paper.
        evidential_data_term: ``"digamma"`` or ``"log"``, see :func:`tral_monai.losses.evidential.evidential_loss`.
        annealing_steps: Training steps until the evidential loss's KL term has its full weight.
        projection: Length of the embedding that prototypes live in, a linear map of the RoI feature. None: the RoI
            feature itself, as the paper may be read; its distances may dwarf the margin.
        prototype_weight: Weight of the prototype loss.
        prototype_margin: The paper's delta.
        temperature: T of the (K + 1)-class detector (LfOSA): cross-entropy sees logits / T.
        loss_prediction_weight: Weight of the loss prediction loss.
        detach_at: Share of training after which the loss prediction no longer changes the backbone (LL4AL).

    Raises:
        ConfigError: A value is out of range.
    """

    strides: tuple[int, ...] = (4, 8, 16, 32)
    fpn_channels: int = 256
    pool_level: bool = True
    frozen_stages: int = 0
    upsample: float = 1.0
    fov_mpp: float = 0.25
    fov_px: int = 256
    anchor_sizes_px: tuple[tuple[float, ...], ...] | None = None
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_convs: int = 1
    rpn_fg_iou: float = 0.7
    rpn_bg_iou: float = 0.3
    rpn_samples: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (2000, 1000)
    rpn_nms_iou: float = 0.7
    roi_size: int = 7
    roi_sampling_ratio: int = 2
    roi_fg_iou: float = 0.5
    roi_bg_iou: float = 0.5
    roi_samples: int = 512
    roi_positive_fraction: float = 0.25
    representation: int = 1024
    class_agnostic_regression: bool = False
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    class_agnostic_nms: bool = False
    max_detections: int = 300
    evidence: Literal["softplus", "relu"] = "softplus"
    evidential_data_term: Literal["digamma", "log"] = "digamma"
    annealing_steps: int = 1000
    projection: int | None = 128
    prototype_weight: float = 0.1
    prototype_margin: float = 10.0
    temperature: float = 0.5
    loss_prediction_weight: float = 1.0
    detach_at: float = 0.6

    def __post_init__(self) -> None:
        for name in ("strides", "rpn_candidates", "proposals"):
            object.__setattr__(self, name, tuple(int(v) for v in getattr(self, name)))
        object.__setattr__(self, "anchor_ratios", tuple(float(v) for v in self.anchor_ratios))
        if self.anchor_sizes_px is not None:
            sizes = tuple(tuple(float(v) for v in level) for level in self.anchor_sizes_px)
            object.__setattr__(self, "anchor_sizes_px", sizes)
        self._check()

    def _check(self) -> None:
        if not self.strides or any(s < 2 or s & (s - 1) for s in self.strides):
            raise ConfigError(f"strides must be powers of 2 from 2 up, but are {list(self.strides)}")
        if any(b != 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise ConfigError(f"strides must double from one to the next, but are {list(self.strides)}")
        for name in ("proposals", "rpn_candidates"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name} must be (in training, in inference), but is {list(getattr(self, name))}")
        for name in _POSITIVE:
            values = getattr(self, name)
            if min(values if isinstance(values, tuple) else (values,)) <= 0:
                raise ConfigError(f"{name} must be above 0, but is {values!r}")
        for name in _SHARES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be from 0 to 1, but is {getattr(self, name)!r}")
        for low, high in (("rpn_bg_iou", "rpn_fg_iou"), ("roi_bg_iou", "roi_fg_iou")):
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(f"{low} must not be above {high}: {getattr(self, low)} > {getattr(self, high)}")
        if self.evidence not in ("softplus", "relu"):
            raise ConfigError(f"evidence must be 'softplus' or 'relu', but is {self.evidence!r}")
        if self.evidential_data_term not in ("digamma", "log"):
            raise ConfigError(f"evidential_data_term must be 'digamma' or 'log', but is {self.evidential_data_term!r}")
        if self.projection is not None and self.projection < 1:
            raise ConfigError(f"projection must be a length above 0 or None, but is {self.projection!r}")
        if min(self.prototype_weight, self.loss_prediction_weight, self.frozen_stages) < 0:
            raise ConfigError("prototype_weight, loss_prediction_weight and frozen_stages must be 0 or more")
        sizes = self.anchor_sizes_px
        if sizes is not None and (
            len(sizes) != len(self.level_strides)
            or len({len(level) for level in sizes}) != 1
            or min(v for level in sizes for v in level) <= 0
        ):
            raise ConfigError(
                f"anchor_sizes_px must be one list of sizes above 0 for each of the {len(self.level_strides)} levels, "
                f"all of one length, but is {[list(level) for level in sizes]}"
            )

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Strides of all levels that proposals come from."""
        return (*self.strides, 2 * self.strides[-1]) if self.pool_level else self.strides

    def anchor_sizes(self) -> tuple[tuple[float, ...], ...]:
        """Sides of the anchors of each level in pixels of the enlarged image."""
        sizes = self.anchor_sizes_px
        if sizes is None:
            levels = len(self.level_strides)
            each = 1 if levels >= 5 else 2
            low, high = (um / self.fov_mpp for um in _NUCLEUS_UM)
            steps = np.geomspace(low, high, levels * each).reshape(levels, each)
            sizes = tuple(tuple(float(v) for v in level) for level in steps)
        return tuple(tuple(v * self.upsample for v in level) for level in sizes)

    def as_dict(self) -> dict[str, Any]:
        """Plain Python values that ``torch.load(weights_only=True)`` can read."""
        return {name: _plain(value) for name, value in asdict(self).items()}


_POSITIVE = (
    "fpn_channels", "upsample", "fov_mpp", "fov_px", "anchor_ratios", "rpn_convs", "rpn_samples", "rpn_candidates",
    "proposals", "roi_size", "roi_sampling_ratio", "roi_samples", "representation", "max_detections",
    "annealing_steps", "prototype_margin", "temperature",
)  # fmt: skip
_SHARES = (
    "rpn_fg_iou", "rpn_bg_iou", "rpn_positive_fraction", "rpn_nms_iou", "roi_fg_iou", "roi_bg_iou",
    "roi_positive_fraction", "score_threshold", "nms_iou", "detach_at",
)  # fmt: skip


def detector_settings(given: Mapping[str, object]) -> DetectorSettings:
    """Settings from keywords, such as those of a bundle's config.

    Args:
        given: Names of :class:`DetectorSettings`'s arguments to values.

    Raises:
        ConfigError: A name is unknown (the message gives the nearest) or a value is out of range.
    """
    names = [field.name for field in fields(DetectorSettings)]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            hint = f"; near it: {', '.join(close)}" if close else ""
            raise ConfigError(f"a detector has no setting {name!r}{hint}")
    arguments: dict[str, Any] = dict(given)
    return DetectorSettings(**arguments)


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
