# SPDX-License-Identifier: Apache-2.0
"""TRI-CNN: one feature extractor per magnification, their pooled features side by side, one classifier."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.backbones import build_backbone, default_normalization, resolve_backbone
from tral_monai.networks.contract import Contract, check_contract
from tral_monai.networks.dense_backbone import DenseBackbone, build_dense_backbone
from tral_monai.networks.dense_tiles import dense_tile_features
from tral_monai.networks.head import build_head
from tral_monai.networks.normalization import NormalizationLike, resolve_normalization
from tral_monai.networks.seeding import seeded
from tral_monai.transforms.stain_normalize import MacenkoNormalize

FeatureNorm = Literal["none", "batch"]
Context = Literal["tile", "dense"]


class TriCNN(nn.Module):
    """Multiscale tissue classifier of TRI-AL (Fuster et al. 2023), adopted there from Wetteland et al.

    By default the paper's network: three weight-independent VGG16 without classifier, global average pool (512 each),
    concatenated in the order 40x, 10x, 2.5x, then Dense 4096 ReLU, dropout, Dense 4096 ReLU, dropout, Dense classes.
    With six classes it has 67,245,510 parameters. The output is logits; the paper's softmax belongs to the loss or
    to the caller.

    The network takes raw RGB (0 to 255) and normalises inside, so whatever runs it (a bundle, MONAI Label,
    a TorchScript file) feeds the same pixels. It also takes a (B, F) matrix of features cached by
    :meth:`features`, which skips the backbones: with ``frozen=True`` both ways give the same logits.

    Args:
        classes: Class names in the order of the outputs, at least two, no name twice.
        backbone: ``torchvision:NAME``, ``timm:NAME``, or a bare name (torchvision's if it has one, else timm's).
        pretrained_path: Where the start weights are: one backbone's ``.pt``, ``.pth`` or ``.safetensors`` (loaded into
            every branch), a whole TriCNN checkpoint, or ``package:NAME`` for weights inside an installed Python
            package (see :mod:`tral_monai.networks.weights`). None: random weights.
        hidden: Widths of the classifier's hidden layers; () gives a linear classifier. The default is the paper's.
        dropout: Probability of dropping a unit after each hidden layer (of a feature, where there is no hidden
            layer). 0.4 as in the authors' active-learning code. Also an attribute that can be set at any time.
        frozen: The backbones stay as they are: no gradients, evaluation mode even in training. The authors' first
            TRI-CNN was frozen; TRI-AL trains everything, which is the default.
        normalization: ``"raw255"`` (RGB as it is, the paper's), ``"imagenet"``, ``"minus_one_one"``, ``"unit"``, a
            mapping with ``mean`` and ``std`` in grey levels, or ``"auto"``: raw255 for torchvision's VGG16, else what
            the backbone's own pretrained weights expect.
        share_weights: One backbone for all magnifications, for small memory. The paper's branches are independent.
        feature_norm: ``"batch"`` standardises each feature by its running mean and variance before the classifier (no
            parameters). Pooled features of a frozen backbone differ in scale by orders of magnitude, on which SGD
            creeps. ``"none"`` is the paper's.
        branch_dropout: Chance of dropping all features of a magnification of a sample in training, so that the
            classifier cannot lean on one alone (see ``BranchDropout``). 0 is the paper's.
        magnifications: Objective powers of the input's RGB triples in their order (mpp = 10 / magnification). One
            branch each.
        tile_px: Side of a tile in pixels. 128 is the paper's.
        context: ``"tile"``, the paper's: a whole backbone per magnification. ``"dense"``: the branches of all but the
            highest magnification are cut off where one cell sees no more than a tile, and do without padding, so that
            :meth:`dense_features` computes the overlapping tiles of a whole canvas at once and exactly. Training reads
            the same tiles. See :mod:`tral_monai.networks.dense_backbone`.
        stain_normalization: Bring each triplet to one reference stain (Macenko) before anything else. It is part of the
            network, so that training, validation, queries and maps cannot disagree about it. Off in the paper.
        class_colors: RGB of each class (name -> (r, g, b)) for maps and reports; kept in checkpoints.
        seed: Seed of the random weights; leaves PyTorch's global generator untouched. None uses the global generator.

    Attributes:
        backbone: Full name of the backbone.
        num_features: F, the length of a feature vector (1536 by default).
        branch_widths: Number of features of each magnification; they add up to ``num_features``.
        highest_scale: Index of the highest magnification.
        normalization: The numbers that ``normalization`` stood for.

    Raises:
        ConfigError: A setting is unknown or out of range.
        CheckpointError: ``pretrained_path`` does not fit.
        MissingExtraError: The package that ``package:NAME`` names is not installed.
    """

    # TorchScript would try to compile properties.
    __jit_unused_properties__: ClassVar[list[str]] = ["dropout", "contract"]
    __jit_ignored_attributes__: ClassVar[list[str]] = ["_stain", "class_colors"]

    def __init__(
        self,
        classes: Sequence[str],
        *,
        backbone: str = "vgg16",
        pretrained_path: str | os.PathLike[str] | None = None,
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.4,
        frozen: bool = False,
        normalization: NormalizationLike = "auto",
        share_weights: bool = False,
        feature_norm: FeatureNorm = "none",
        branch_dropout: float = 0.0,
        magnifications: Sequence[float] = (40.0, 10.0, 2.5),
        tile_px: int = 128,
        context: Context = "tile",
        stain_normalization: bool = False,
        class_colors: Mapping[str, Sequence[int]] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.classes: tuple[str, ...] = _checked_classes(classes)
        self.backbone: str = resolve_backbone(backbone)
        self.hidden: tuple[int, ...] = _checked_hidden(hidden)
        self.magnifications: tuple[float, ...] = _checked_magnifications(magnifications)
        self.tile_px: int = int(tile_px)
        self.share_weights: bool = bool(share_weights)
        self.frozen: bool = bool(frozen)
        if feature_norm not in ("none", "batch"):
            raise ConfigError(f"feature_norm must be 'none' or 'batch', but is {feature_norm!r}")
        self.feature_norm: str = feature_norm
        self.normalization = resolve_normalization(normalization, auto=default_normalization(self.backbone))
        self.num_scales: int = len(self.magnifications)
        if not 0.0 <= branch_dropout < 1.0:
            raise ConfigError(f"branch_dropout must be at least 0 and below 1, but is {branch_dropout!r}")
        self.branch_dropout: float = float(branch_dropout)
        self.class_colors = {name: tuple(int(v) for v in color) for name, color in (class_colors or {}).items()}
        self.stain_normalization: bool = bool(stain_normalization)
        self._stain = MacenkoNormalize() if self.stain_normalization else None
        self.highest_scale: int = self.magnifications.index(max(self.magnifications))
        self.context: str = _checked_context(
            context, scales=self.num_scales, share_weights=share_weights, stain_normalization=stain_normalization
        )
        dropout = _checked_dropout(dropout)

        with seeded(seed):
            branches = [self._build_branch(scale) for scale in range(1 if self.share_weights else self.num_scales)]
            self.branches = nn.ModuleList(module for module, _ in branches)
            widths = [width for _, width in branches] * (self.num_scales if self.share_weights else 1)
            self.branch_widths: tuple[int, ...] = tuple(widths)
            self.num_features: int = sum(widths)
            self.head = build_head(
                widths,
                self.hidden,
                len(self.classes),
                dropout=dropout,
                feature_norm=feature_norm,
                branch_dropout=self.branch_dropout,
            )
        # Buffers, so that a model loaded by its weights alone also sees the pixels that it was trained on.
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(self.normalization.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.normalization.std).view(1, 3, 1, 1))

        if pretrained_path is not None:
            from tral_monai.networks.weights import load_pretrained

            load_pretrained(self, pretrained_path)
        if self.frozen:
            self.branches.requires_grad_(False)
            self.branches.eval()

    def _build_branch(self, scale: int) -> tuple[nn.Module, int]:
        if self.context == "dense" and scale != self.highest_scale:
            branch = build_dense_backbone(self.backbone, tile_px=self.tile_px)
            return branch, branch.num_features
        return build_backbone(self.backbone, tile_px=self.tile_px)

    @classmethod
    def from_contract(cls, contract: Mapping[str, Any]) -> TriCNN:
        """Builds the network that a checkpoint's contract describes, with random weights.

        Args:
            contract: ``network.contract.state_dict()`` of the network that was saved.

        Raises:
            CheckpointError: The contract is not one, or names a backbone that the installed libraries lack.
        """
        read = check_contract(contract)
        keys = ["backbone", "hidden", "dropout", "frozen", "normalization", "share_weights", "feature_norm"]
        keys += ["branch_dropout", "magnifications", "tile_px", "context", "stain_normalization", "class_colors"]
        try:
            options = {key: read[key] for key in keys}
            return cls(read["classes"], seed=0, **options)
        except ConfigError as error:
            raise CheckpointError(f"no network can be built from the checkpoint's contract: {error}") from error

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of tile triplets, or of features cached from them.

        Args:
            image: (B, 3 * scales, H, W), RGB of each magnification in turn, uint8 or float on the scale 0 to 255; or
                (B, F) float, what :meth:`features` returned.

        Returns:
            (B, C) float logits, in the order of ``classes``.
        """
        if image.dim() == 2:
            return self.head(image.to(self.mean.dtype))
        return self.head(self.features(image))

    @torch.jit.export
    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Pooled features of every branch side by side, before ``feature_norm``.

        Args:
            image: (B, 3 * scales, H, W), uint8 or float on the scale 0 to 255.

        Returns:
            (B, F) float; detached where the backbones are frozen.
        """
        if image.dim() != 4 or image.shape[1] != 3 * self.num_scales:
            raise ValueError(
                f"expected (B, {3 * self.num_scales}, H, W): RGB at {self.num_scales} magnifications, "
                f"or (B, {self.num_features}) cached features, but got {list(image.shape)}"
            )
        if self.frozen:
            with torch.no_grad():
                return self._branch_features(image)
        return self._branch_features(image)

    def _branch_features(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            assert not self.stain_normalization, "TorchScript cannot hold the stain normalisation; use torch.export"
        elif self.stain_normalization:
            image = self._stain_normalized(image)
        pooled: list[torch.Tensor] = []
        if self.share_weights:
            for branch in self.branches:
                for scale in range(self.num_scales):
                    pooled.append(branch(self._normalized(image, scale)))
        else:
            for scale, branch in enumerate(self.branches):
                pooled.append(branch(self._normalized(image, scale)))
        return torch.cat(pooled, dim=1)

    @torch.no_grad()
    def dense_features(
        self, canvas: torch.Tensor, starts_px: torch.Tensor, scale: int, *, branch: DenseBackbone | None = None
    ) -> torch.Tensor:
        """Features of many tiles of one canvas at a lower magnification, with what overlaps computed once.

        Equal to the part of :meth:`features` of that magnification, up to rounding.

        Args:
            canvas: (1, 3, H, W), uint8 or float on the scale 0 to 255, on the network's device.
            starts_px: (k, 2) integers, top-left (x, y) of each tile in the canvas.
            scale: Index of the magnification.
            branch: A copy of the magnification's branch to take instead, such as one in half precision.

        Returns:
            (k, F of this magnification) float32.

        Raises:
            ConfigError: The magnification has no dense branch.
            ValueError: The canvas or the tiles' places are not of this form, or a tile leaves the canvas.
        """
        own = self.branches[scale] if self.context == "dense" else None
        if not isinstance(own, DenseBackbone):
            raise ConfigError(
                f"dense features need a network with context='dense' and a magnification below its highest, but this "
                f"one has context={self.context!r} and magnification {self.magnifications[scale]:g} of "
                f"{self.magnifications}; take features() of tiles"
            )
        return dense_tile_features(
            own if branch is None else branch,
            canvas,
            starts_px,
            tile_px=self.tile_px,
            normalize=lambda rgb: self._normalized(rgb, 0),
        )

    def _stain_normalized(self, image: torch.Tensor) -> torch.Tensor:
        assert self._stain is not None
        with torch.no_grad():
            return self._stain(image)

    def _normalized(self, image: torch.Tensor, scale: int) -> torch.Tensor:
        rgb = image[:, 3 * scale : 3 * scale + 3].to(self.mean.dtype)
        return (rgb - self.mean) / self.std

    def train(self, mode: bool = True) -> TriCNN:
        """Sets the training mode; frozen backbones stay in evaluation mode."""
        if not self.frozen:
            return super().train(mode)
        # Trainers call this in every iteration, and walking through three deep backbones that are frozen anyway would
        # take longer than the step of a classifier on cached features.
        self.training = mode
        self.head.train(mode)
        for branch in self.branches:
            if branch.training:
                branch.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Silently taking over another normalisation would leave `contract` telling a lie.
        for name in ("mean", "std"):
            theirs, ours = state_dict.get(prefix + name), getattr(self, name)
            if theirs is not None and not torch.allclose(
                theirs.float().cpu(), ours.float().cpu(), rtol=1e-2, atol=1e-3
            ):
                raise CheckpointError(
                    f"the weights were trained with normalisation {name} {theirs.flatten().tolist()}, but this network "
                    f"has {ours.flatten().tolist()}; build it with the checkpoint's normalization"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def dropout(self) -> float:
        """Probability of every dropout layer; MONAI Label's epistemic scoring sets it."""
        return float(next(m.p for m in self.head if isinstance(m, nn.Dropout)))

    @dropout.setter
    def dropout(self, probability: float) -> None:
        for module in self.head:
            if isinstance(module, nn.Dropout):
                module.p = _checked_dropout(probability)

    @property
    def contract(self) -> Contract:
        """What belongs beside the weights in a checkpoint."""
        return Contract(self)

    def feature_fingerprint(self) -> str:
        """SHA-256 of everything that decides what :meth:`features` returns: the key of a feature cache.

        Returns:
            64 hexadecimal digits. Equal on every device; changes with any backbone weight.
        """
        keys = ["backbone", "normalization", "magnifications", "tile_px", "stain_normalization"]
        if self.context != "tile":  # caches from before this option remain valid
            keys.append("context")
        settings = {key: self.contract.state_dict()[key] for key in keys}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in self.branches.state_dict().items():
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def _checked_classes(classes: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(classes, str) else tuple(classes)
    if len(names) < 2 or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"classes must be a list of at least two names, but is {classes!r}")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"classes must differ, but {', '.join(twice)} stands more than once in {list(names)!r}")
    return names


def _checked_hidden(hidden: Sequence[int]) -> tuple[int, ...]:
    if not all(isinstance(u, int) and u > 0 for u in hidden):
        raise ConfigError(f"hidden must be a list of layer widths above 0 (may be empty), but is {hidden!r}")
    return tuple(hidden)


def _checked_magnifications(magnifications: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(m) for m in magnifications)
    if not values or min(values) <= 0 or len(set(values)) != len(values):
        raise ConfigError(f"magnifications must be different numbers above 0, but are {magnifications!r}")
    return values


def _checked_context(context: str, *, scales: int, share_weights: bool, stain_normalization: bool) -> str:
    if context not in ("tile", "dense"):
        raise ConfigError(f"context must be 'tile' or 'dense', but is {context!r}")
    if context == "tile":
        return context
    if scales < 2:
        raise ConfigError("context='dense' is about the magnifications below the highest, but there is only one")
    if share_weights:
        raise ConfigError(
            "context='dense' gives the lower magnifications other layers than the highest one, so share_weights=True "
            "does not go with it; choose one of the two"
        )
    if stain_normalization:
        raise ConfigError(
            "stain_normalization=True changes each tile by its own stain, so that overlapping tiles have no pixels in "
            "common and context='dense' cannot be exact; choose one of the two"
        )
    return context


def _checked_dropout(dropout: float) -> float:
    if not 0.0 <= float(dropout) < 1.0:
        raise ConfigError(f"dropout must be at least 0 and below 1, but is {dropout!r}")
    return float(dropout)
