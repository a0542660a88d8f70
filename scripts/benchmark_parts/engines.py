# SPDX-License-Identifier: Apache-2.0
"""TriCNN in every engine that runs here, end to end over one region, against the loop that a user writes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmark_parts.common import Options, Spent, Table, rates, say, take_turns
from benchmark_parts.mapping import MapperPlan, PlainLoop, Region, agreement
from benchmark_parts.networks import tissue_network
from tral_monai.inference.engines.available import require_engine
from tral_monai.inference.engines.settings import EngineSettings

_BASELINE = "plain loop, torch fp32"
_ENGINES = (
    EngineSettings("torch", "fp32"),
    EngineSettings("compile", "fp32"),
    EngineSettings("onnxruntime", "fp32"),
    EngineSettings("openvino", "fp32"),
    EngineSettings("torch", "bf16"),
    EngineSettings("compile", "bf16"),
    EngineSettings("openvino", "bf16"),
)


def run(options: Options) -> list[Table]:
    slide = options.slide_path().resolve()
    network = tissue_network(options, slide)
    region = Region(options, slide, options.tiles)
    plans: dict[str, MapperPlan | PlainLoop] = {
        _BASELINE: PlainLoop(region, network, device="cpu", batch_size=options.batch_size)
    }
    notes = []
    for settings in _ENGINES:
        try:
            require_engine(settings.name, settings.precision, "cpu")
            say(f"  preparing {settings.title}")
            plans[settings.title] = MapperPlan(
                region, network, device="cpu", batch_size=options.batch_size, engine=settings
            )
        except Exception as error:  # one engine that fails must not take the other figures along
            notes.append(f"`{settings.title}` did not run: {type(error).__name__}: {' '.join(str(error).split())}")
    turns: dict[str, Callable[[], Spent]] = dict(plans)
    rounds = take_turns(turns, options.repeats)
    rows: list[dict[str, Any]] = []
    for row in rates(rounds, len(region.centres), baseline=_BASELINE, unit="triplets"):
        plan = plans[row["plan"]]
        found = agreement(plans[_BASELINE].probabilities, plan.probabilities)
        rows.append(
            {
                **row,
                "class agreement": f"{found.class_agreement:.2%}",
                "largest probability difference": f"{found.largest_probability_difference:.1e}",
                "preparation, s": round(plan.preparation_s, 1),
            }
        )
    classes = len(set(plans[_BASELINE].probabilities.argmax(axis=1).tolist()))
    notes.insert(
        0,
        f"TriCNN {options.backbone}, `{slide.name}`, {len(region.centres)} triplets of {classes} classes, batches of "
        f"{options.batch_size}, {options.repeats} rounds, medians. Preparation (compiling, converting) is not in the "
        "rates.",
    )
    return [Table("Engines, end to end", rows, notes)]
