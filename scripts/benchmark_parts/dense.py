# SPDX-License-Identifier: Apache-2.0
"""Speed against exactness: dense context and early exit beside the exact network, over one region.

Each row is compared with its own network, tile by tile in full precision. What dense context and gates cost in macro F1
on real labels is another question: ``compare_context.py`` and the gate's own report answer it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark_parts.common import Options, Spent, Table, rates, say, take_turns
from benchmark_parts.mapping import MapperPlan, Region, agreement, in_order
from benchmark_parts.networks import tissue_network
from tral_monai.inference.early_exit.exit_head import fit_exit_head
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.early_exit.low_branches import low_feature_columns
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.tile_model import PerTileModel
from tral_monai.networks.tri_cnn import TriCNN

_BASELINE = "exact, tile by tile"
_ASKED = (0.5, 0.3, 0.1)  # shares of the tiles that are looked at at 40x
_HALF = EngineSettings("torch", "bf16")


def run(options: Options) -> list[Table]:
    slide = options.slide_path().resolve()
    region = Region(options, slide, options.tiles)
    plans: dict[str, MapperPlan] = {}
    reference: dict[str, NDArray[np.float32]] = {}  # the answers that a plan is compared with
    for context in ("tile", "dense"):
        network = tissue_network(options, slide, context=context)
        exact, low, centres = _exact_answers(region, network, options)
        found = _plans(region, network, options, context=context)
        gates = _gates(network, low, exact, options.work)
        for asked, gate in gates.items():
            title = f"early exit, {asked:.0%} at 40x" + (", dense context" if context == "dense" else "")
            say(f"  preparing {title}")
            found[title] = MapperPlan(region, network, device="cpu", batch_size=options.batch_size, early_exit=gate)
        plans |= found
        reference |= dict.fromkeys(found, in_order(centres, exact))
    turns: dict[str, Callable[[], Spent]] = dict(plans)
    rounds = take_turns(turns, options.repeats)
    rows: list[dict[str, Any]] = []
    for row in rates(rounds, len(region.centres), baseline=_BASELINE, unit="triplets"):
        plan = plans[row["plan"]]
        agreed = agreement(reference[row["plan"]], plan.probabilities)
        rows.append(
            {
                **row,
                "same class as its network, tile by tile": f"{agreed.class_agreement:.2%}",
                "largest probability difference": f"{agreed.largest_probability_difference:.1e}",
                "exited": plan.computed.get("exited"),
            }
        )
    note = (
        f"TriCNN {options.backbone}, `{slide.name}`, {len(region.centres)} triplets in one block, batches of "
        f"{options.batch_size}, {options.repeats} rounds, medians. The gates' thresholds are set for these tiles to "
        "leave the shares named; weights are not a trained model's."
    )
    return [Table("Speed against exactness", rows, [note])]


def _plans(region: Region, network: TriCNN, options: Options, *, context: str) -> dict[str, MapperPlan]:
    size = options.batch_size
    if context == "tile":
        titles = {_BASELINE: EngineSettings(), f"tile by tile, {_HALF.title}": _HALF}
    else:
        titles = {"dense context": EngineSettings(), f"dense context, {_HALF.title}": _HALF}
    plans = {}
    for title, engine in titles.items():
        say(f"  preparing {title}")
        plans[title] = MapperPlan(region, network, device="cpu", batch_size=size, engine=engine)
    if context == "dense":
        title = "dense context network, tile by tile"
        plans[title] = MapperPlan(region, network, device="cpu", batch_size=size)
        plans[title].mapper.model = PerTileModel(network, device="cpu", batch_size=size)
    return plans


def _exact_answers(
    region: Region, network: TriCNN, options: Options
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities (n, C), low-magnification features (n, F) and centres (n, 2) of the region, tile by tile."""
    say("  exact answers and features")
    plan = MapperPlan(region, network, device="cpu", batch_size=options.batch_size)
    plan.mapper.model = PerTileModel(network, device="cpu", batch_size=options.batch_size)
    parts: list[MappedTiles] = []
    plan.mapper.map_slide(
        region.slide,
        region_level0=region.box_level0,
        mask=region.mask,
        on_tiles=parts.append,
        want_features=True,
    )
    features = np.concatenate([part.features for part in parts if part.features is not None])
    return (
        np.concatenate([part.probabilities for part in parts]),
        features[:, low_feature_columns(network).numpy()],
        np.concatenate([part.centres_level0 for part in parts]),
    )


def _gates(network: TriCNN, low: NDArray[np.float32], exact: NDArray[np.float32], folder: Path) -> dict[float, Path]:
    """Files of gates that ask for 40x for certain shares of these tiles."""
    weight, bias = fit_exit_head(torch.from_numpy(low), torch.from_numpy(exact), l2=0.01)
    sure = torch.nn.functional.linear(torch.from_numpy(low), weight, bias).softmax(dim=1).amax(dim=1)
    paths = {}
    for asked in _ASKED:
        gate = ExitGate(
            classes=network.classes,
            weights_sha256=weights_sha256(network),
            context=network.context,
            magnifications=tuple(sorted(network.magnifications, reverse=True)[1:]),
            weight=weight,
            bias=bias,
            temperature=1.0,
            threshold=float(sure.quantile(asked)),
            undefined_below=0.6,
            damaged_at_least=0.9,
            calibration={"max_disagreement": 0.0, "splits": []},
        )
        paths[asked] = gate.save(folder / f"gate_{network.context}_{asked:g}.pt")
    return paths
