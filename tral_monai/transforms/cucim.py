# SPDX-License-Identifier: Apache-2.0
"""cuCIM's operations on batches of tiles, where CuPy and a GPU are present.

Geometry goes through MONAI's ``CuCIMd``. cuCIM's random operations (``RandCuCIMd``) draw from a generator of their own
that nobody can seed, and change their input; so the draws are made here, from the caller's generator, and the plain
operations carry them out. That is what makes both backends give the same pixels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch

from tral_monai.errors import ConfigError, MissingExtraError

logger = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "cucim"]

_OPERATIONS = "cucim.core.operations.expose.transform"
_said: set[str] = set()


def checked_backend(backend: str) -> Backend:
    """Passes on the name of a backend.

    Raises:
        ConfigError: It is none.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"backend must be one of {list(get_args(Backend))}, but is {backend!r}")
    return backend  # type: ignore[return-value]


def cucim_unusable(device: torch.device) -> str | None:
    """Why cuCIM cannot work on batches of a device; None if it can.

    Args:
        device: Where the batch is.
    """
    if device.type != "cuda":
        return f"the batch is on {device.type}, cuCIM works on NVIDIA GPUs only"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    if _OPERATIONS in sys.modules:
        return None
    from tral_monai.slides.cucim_backend import cucim_unavailable

    reason = cucim_unavailable()
    return None if reason is None else f"cuCIM: {reason}"


def uses_cucim(backend: Backend, device: torch.device) -> bool:
    """Decides between cuCIM and torch; says once per reason why ``auto`` did not take cuCIM on a GPU.

    Args:
        backend: What the user asked for.
        device: Where the batch is.

    Raises:
        ConfigError: ``cucim`` was asked for and cannot work here.
        MissingExtraError: Likewise, because it is not installed.
    """
    if backend == "torch":
        return False
    reason = cucim_unusable(device)
    if reason is None:
        return True
    if backend == "cucim":
        if "not installed" in reason:
            raise MissingExtraError("backend='cucim'", "cucim")
        raise ConfigError(f"backend='cucim' cannot be used: {reason}; use backend='auto' or 'torch'")
    if reason not in _said:
        _said.add(reason)
        logger.info("transforms run in torch: %s", reason)
    return False


def dihedral_cucim(image: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
    """:func:`tral_monai.transforms.geometry.apply_dihedral` through MONAI's ``CuCIMd``.

    Samples are grouped by their element, so that cuCIM is called at most twelve times per batch.

    Args:
        image: (B, C, H, W) on a GPU.
        elements: (B,) int64 on the CPU, 0 to 7.

    Returns:
        (B, C, H, W), pixels permuted.
    """
    from monai.transforms.utility.dictionary import CuCIMd

    operations = {
        "turn": CuCIMd(keys="image", name="image_rotate_90", k=1, spatial_axis=(2, 3)),
        "vertical": CuCIMd(keys="image", name="image_flip", spatial_axis=(2,)),
        "horizontal": CuCIMd(keys="image", name="image_flip", spatial_axis=(3,)),
    }
    dtype = image.dtype
    if dtype == torch.bfloat16:  # CuPy has no such type, and moving pixels needs none
        image = image.view(torch.int16)
    result = image.clone(memory_format=torch.contiguous_format)
    for element in sorted(set(elements.tolist()) - {0}):
        rows = (elements == element).nonzero().flatten().to(image.device)
        with _as_cupy(image[rows]) as array:
            data = {"image": array}
            for step in dihedral_steps(element):
                data = operations[step](data)
            result[rows] = _as_torch(data["image"], image.device)
    return result.view(dtype)


def dihedral_steps(element: int) -> list[str]:
    """What cuCIM's operations have to do for one symmetry of the square.

    Args:
        element: 0 to 7, see :func:`tral_monai.transforms.geometry.apply_dihedral`.

    Returns:
        In order: ``turn`` (a quarter turn counter-clockwise), ``vertical`` (mirror top to bottom), ``horizontal``.
    """
    transpose, vertical, horizontal = bool(element & 4), bool(element & 2), bool(element & 1)
    # Transposing is a quarter turn and then a mirror top to bottom; two of these mirrors cancel out.
    steps = {"turn": transpose, "vertical": transpose != vertical, "horizontal": horizontal}
    return [step for step, needed in steps.items() if needed]


def stain_vectors_cucim(density: torch.Tensor, percentile: float) -> torch.Tensor:
    """Stain vectors of one image by cuCIM's ``stain_extraction_pca`` (MONAI has no wrapper for it).

    Args:
        density: (3, P) float32 optical density of the image's tissue pixels, on a GPU; at least two of them.
        percentile: Of the angles that count as pure stains.

    Returns:
        (3, 2) float32: columns hematoxylin and eosin, each of length 1.
    """
    from cucim.core.operations.color import stain_extraction_pca

    with _as_cupy(density) as array:
        found = stain_extraction_pca(array, alpha=percentile, beta=0.0, channel_axis=0, image_type="absorbance")
        return _as_torch(found, density.device).float()


@contextlib.contextmanager
def _as_cupy(tensor: torch.Tensor) -> Iterator[Any]:
    """The tensor's memory as a CuPy array, CuPy working in torch's device and stream."""
    import cupy

    with (
        cupy.cuda.Device(tensor.device.index),
        cupy.cuda.ExternalStream(torch.cuda.current_stream(tensor.device).cuda_stream),
    ):
        yield cupy.asarray(tensor.contiguous())


def _as_torch(array: Any, device: torch.device) -> torch.Tensor:
    import cupy

    return torch.as_tensor(cupy.ascontiguousarray(array), device=device)
