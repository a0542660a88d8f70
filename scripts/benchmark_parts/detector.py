# SPDX-License-Identifier: Apache-2.0
"""Faster R-CNN on fields of 512 px, end to end, in the engines that take detectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmark_parts.common import Options, Spent, Table, clock, rates, say, take_turns
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.nuclei.nucleus_mapper import NucleusMapper
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.slides.slide import Slide, open_slide

_FIELD, _OVERLAP = 512, 64
_BASELINE = "torch fp32"
_CPU = (("torch", "fp32"), ("torch", "bf16"), ("compile", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
_GPU = (("torch", "fp32"), ("torch", "bf16"), ("torch", "fp16"), ("compile", "bf16"), ("tensorrt", "fp16"))


def run(options: Options) -> list[Table]:
    return [measure(options, device="cpu", batch_size=4)]


def measure(options: Options, *, device: str, batch_size: int) -> Table:
    """Images per second of every engine on one device."""
    side = _FIELD + (max(1, round(options.images**0.5)) - 1) * (_FIELD - _OVERLAP)
    network = OpenSetRCNN(("epithelial", "inflammatory", "stromal"), seed=0).eval()
    notes: list[str] = []
    plans: dict[str, Callable[[], Spent]] = {}
    images = 0
    with open_slide(options.slide_path(side)) as slide:
        for name, precision in _CPU if device == "cpu" else _GPU:
            engine = EngineSettings(name, precision, min_agreement=0.0, agreement_tiles=1)  # type: ignore[arg-type]
            say(f"  preparing {engine.title}")
            try:
                mapper = NucleusMapper(
                    network,
                    engine=engine,
                    device=device,
                    batch_size=batch_size,
                    tile_px=_FIELD,
                    overlap_px=_OVERLAP,
                    use_mask="never",
                    min_score=0.0,
                )
                images = mapper.map_slide(slide).tiles
            except Exception as error:  # one engine that fails must not take the other figures along
                notes.append(f"`{engine.title}` did not run: {type(error).__name__}: {' '.join(str(error).split())}")
            else:
                plans[engine.title] = _Plan(mapper, slide)
        rounds = take_turns(plans, options.repeats)
    rows: list[dict[str, Any]] = rates(rounds, images, baseline=_BASELINE, unit="images")
    notes.insert(
        0,
        f"OpenSetRCNN ResNet-50, {images} fields of {_FIELD} px in batches of {batch_size}, random weights, so as many "
        f"boxes as the detector allows; {options.repeats} rounds, medians, on {device}.",
    )
    return Table("Faster R-CNN, end to end", rows, notes)


class _Plan:
    def __init__(self, mapper: NucleusMapper, slide: Slide) -> None:
        self.mapper, self.slide = mapper, slide

    def __call__(self) -> Spent:
        with clock() as spent:
            self.mapper.map_slide(self.slide)
            if self.mapper.device.type == "cuda":
                torch.cuda.synchronize()
        return spent
