# SPDX-License-Identifier: Apache-2.0
"""On a GPU: triplets and images per second in every engine, how busy it is, where the time goes, how far the floor is.

The floor is the time that the network's multiplications take at the rate that large matrix products reach here.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import torch

from benchmark_parts import detector
from benchmark_parts.common import Options, Table, say
from benchmark_parts.mapping import MapperPlan, PlainLoop, Region, agreement
from benchmark_parts.networks import tissue_network
from tral_monai.inference.engines.available import require_engine
from tral_monai.inference.engines.settings import EngineSettings

_GFLOP_PER_TRIPLET = 30.1  # three VGG16 without classifier at 128 px, a multiplication and an addition counted as two
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ENGINES = (
    EngineSettings("torch", "fp32"),
    EngineSettings("torch", "bf16"),
    EngineSettings("torch", "fp16"),
    EngineSettings("compile", "bf16"),
    EngineSettings("compile", "fp32"),
    EngineSettings("tensorrt", "fp16"),
    EngineSettings("tensorrt", "fp32"),
)
_PLAIN_TILES = 1024
_ENOUGH_S = 420.0  # no new engine is begun after this: all must fit into ten minutes


def run(options: Options) -> list[Table]:
    if not torch.cuda.is_available():
        return [Table("GPU", [], ["no GPU here"])]
    started = time.perf_counter()
    rates = {name: matmul_tflops(dtype) for name, dtype in _DTYPES.items()}
    device = torch.cuda.get_device_properties(0)
    machine = [{"GPU": device.name, "memory, GiB": round(device.total_memory / 2**30, 1), **{
        f"matrix product {name}, TFLOP/s": round(rate, 1) for name, rate in rates.items()}}]  # fmt: skip
    tables = [Table("GPU", machine, ["Matrix products of 8192 x 8192; fp32 as torch is set, without TF32."])]
    tables.append(_triplets(options, rates, started))
    say("  detector")
    tables.append(detector.measure(options, device="cuda", batch_size=16))
    return tables


def _triplets(options: Options, rates: dict[str, float], started: float) -> Table:
    slide = options.slide_path().resolve()
    network = tissue_network(options, slide)
    batch = max(options.batch_size, 256)
    few = Region(options, slide, _PLAIN_TILES)
    plain = PlainLoop(few, network, device="cuda", batch_size=batch)
    plain()
    baseline = statistics.median(len(few.centres) / plain().wall for _ in range(options.repeats))
    rows: list[dict[str, Any]] = [{"plan": "plain loop, torch fp32", "triplets per s": round(baseline, 1)}]
    whole = Region(options, slide, max(options.tiles, 10_000))
    notes, reference = [], None
    for engine in _ENGINES:
        for workers in (1, 8) if not engine.is_reference else (4,):
            title = f"{engine.title}, {workers} decoding thread{'s' if workers > 1 else ''}"
            if time.perf_counter() - started > _ENOUGH_S:
                notes.append(f"`{title}` was left out: no time.")
                continue
            say(f"  {title}")
            try:
                require_engine(engine.name, engine.precision, "cuda")
                plan = MapperPlan(whole, network, device="cuda", batch_size=batch, engine=engine, num_workers=workers)
                rows.append(_row(title, plan, options, rates[engine.precision], baseline))
            except Exception as error:  # one engine that fails must not take the other figures along
                notes.append(f"`{title}` did not run: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
                continue
            reference = plan.probabilities if reference is None else reference
            found = agreement(reference, plan.probabilities)
            rows[-1]["class agreement"] = f"{found.class_agreement:.2%}"
            rows[-1]["largest probability difference"] = f"{found.largest_probability_difference:.1e}"
    notes.insert(
        0,
        f"TriCNN {options.backbone}, `{slide.name}`, {len(whole.centres)} triplets ({len(few.centres)} for the plain "
        f"loop), batches of {batch}, {options.repeats} rounds, medians. Busy: share of samples' time in which a kernel "
        f"ran. Floor: {_GFLOP_PER_TRIPLET} GFLOP per triplet at the matrix rate of the precision.",
    )
    return Table("TriCNN on the GPU, end to end", rows, notes)


def _row(title: str, plan: MapperPlan, options: Options, tflops: float, baseline: float) -> dict[str, Any]:
    walls, cpus, shares, busy = [], [], [], []
    for _ in range(options.repeats):
        with Utilisation() as used:
            spent = plan()
        walls.append(spent.wall)
        cpus.append(spent.cpu)
        shares.append({name: plan.seconds.get(name, 0.0) / plan.seconds["total"] for name in _STAGES})
        busy.append(used.mean())
    rate = len(plan.region.centres) / statistics.median(walls)
    return {
        "plan": title,
        "triplets per s": round(rate, 1),
        "times the plain loop": round(rate / baseline, 1),
        "triplets per CPU-s": round(len(plan.region.centres) / statistics.median(cpus), 1),
        "GPU busy": _percent(statistics.median(busy)),
        **{words: _percent(statistics.median(one[name] for one in shares)) for name, words in _STAGES.items()},
        "of the floor": _percent(rate * _GFLOP_PER_TRIPLET / 1000 / tflops),
        "preparation, s": round(plan.preparation_s, 1),
    }


_STAGES = {"wait_for_pixels": "waiting for pixels and uploads", "model": "model"}


def _percent(share: float) -> str:
    return f"{share:.0%}"


def matmul_tflops(dtype: torch.dtype, side: int = 8192, repeats: int = 20) -> float:
    """Rate of square matrix products on the GPU, TFLOP/s."""
    a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    since = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return 2 * side**3 * repeats / (time.perf_counter() - since) / 1e12


class Utilisation:
    """Samples how busy the GPU is, by pynvml through torch or by nvidia-smi; NaN where neither is there."""

    def __init__(self, every_s: float = 0.1) -> None:
        self._every_s = every_s
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def mean(self) -> float:
        """Mean share of the time in which at least one kernel ran, 0 to 1."""
        return statistics.fmean(self._samples) if self._samples else float("nan")

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            found = gpu_busy()
            if found is None:
                return
            self._samples.append(found)


def gpu_busy() -> float | None:
    """Share of the last moment in which a kernel ran on GPU 0; None where it cannot be told."""
    import subprocess

    try:
        return torch.cuda.utilization(0) / 100
    except Exception:  # without pynvml, torch raises different errors in different versions
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        try:
            return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout) / 100
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
