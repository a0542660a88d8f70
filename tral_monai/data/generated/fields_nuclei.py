# SPDX-License-Identifier: Apache-2.0
"""How nuclei of the seven classes of the generated fields are drawn, one by one.

Sizes, shapes, chromatin and cytoplasm follow what the classes look like in H&E, with spreads wide enough that
neighbouring classes overlap: a plasma cell cut off its cytoplasm is a lymphocyte, a plump fibroblast looks like a pale
tumour nucleus, a shrunken tumour nucleus like a mitosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tral_monai.data.generated.grid import FloatArray
from tral_monai.data.generated.textures import TEXTURE_PX, periodic_noise

Spread = tuple[float, float]
"""Mean and standard deviation of a normal distribution, cut at two standard deviations."""


@dataclass(frozen=True)
class Cytoplasm:
    """The cell body around a nucleus, for classes that are told by it.

    Attributes:
        length_um: Long axis.
        width_um: Short axis.
        eosin: Concentration of eosin.
        hematoxylin: Concentration of hematoxylin.
        offset_um: Distance of its centre from the nucleus' centre (an eccentric nucleus).
        foam: Depth of its vacuoles or granules, relative to ``eosin``; negative for granules.
        hof: How much paler the place beside the nucleus is, 0 to 1 (the Golgi zone of plasma cells).
        opacity: Share of what lies below that it hides, 0 to 1.
    """

    length_um: Spread
    width_um: Spread
    eosin: float
    hematoxylin: float
    offset_um: float = 0.0
    foam: float = 0.0
    hof: float = 0.0
    opacity: float = 0.9


@dataclass(frozen=True)
class Look:
    """One way in which a nucleus of a class can look.

    Attributes:
        length_um: Long axis of the nucleus, or of each of its lobes.
        ratio: Short axis over long axis.
        amount: Mean concentration of hematoxylin inside.
        chromatin: Contrast of its chromatin.
        clump_um: Size of the clumps of chromatin.
        rim: Extra stain at the nuclear membrane, relative to ``amount``.
        nucleoli: Probability of a nucleolus.
        bend: Greatest curvature of the long axis, relative to the length.
        wobble: Greatest irregularity of the outline, relative to the radius.
        power: Exponent of the superellipse: 2 is an ellipse, 3 has blunt ends.
        lobes: Fewest and most lobes.
        lobe_gap_um: Distance between neighbouring lobes' centres.
        cytoplasm: The cell body, None where the background draws it.
        weight: How often the class looks so.
    """

    length_um: Spread
    ratio: Spread
    amount: Spread
    chromatin: float
    clump_um: float = 0.45
    rim: float = 0.2
    nucleoli: float = 0.0
    bend: float = 0.0
    wobble: float = 0.07
    power: float = 2.2
    lobes: tuple[int, int] = (1, 1)
    lobe_gap_um: float = 0.0
    cytoplasm: Cytoplasm | None = None
    weight: float = 1.0


_CLEARED = Cytoplasm((14.0, 1.5), (12.0, 1.2), 0.13, 0.07, opacity=0.55)
_SHRUNKEN = Cytoplasm((8.5, 1.4), (6.8, 1.1), 0.58, 0.10)

CLASSES: dict[str, tuple[Look, ...]] = {
    "tumor": (
        Look((9.2, 1.4), (0.80, 0.09), (0.47, 0.09), 0.62, rim=0.50, nucleoli=0.75, wobble=0.09, weight=0.84),
        Look((8.2, 1.2), (0.72, 0.12), (0.76, 0.10), 0.36, rim=0.12, nucleoli=0.15, wobble=0.13, weight=0.16),
    ),
    "lymphocyte": (
        Look((5.9, 0.5), (0.91, 0.05), (0.84, 0.09), 0.52, rim=0.14, wobble=0.05, weight=0.85),
        Look((7.0, 0.6), (0.88, 0.06), (0.64, 0.08), 0.55, rim=0.28, nucleoli=0.2, wobble=0.06, weight=0.15),
    ),
    "stromal": (
        Look((12.8, 2.4), (0.24, 0.05), (0.66, 0.10), 0.30, rim=0.10, bend=0.11, power=1.8, weight=0.72),
        Look((10.6, 1.6), (0.45, 0.09), (0.46, 0.08), 0.50, rim=0.36, nucleoli=0.35, bend=0.06, weight=0.28),
    ),
    "plasma": (
        Look(
            (6.2, 0.6),
            (0.90, 0.05),
            (0.74, 0.09),
            0.80,
            clump_um=0.62,
            rim=0.40,
            wobble=0.04,
            cytoplasm=Cytoplasm((11.6, 1.3), (8.3, 0.8), 0.32, 0.22, offset_um=2.3, hof=0.65),
            weight=0.76,
        ),
        Look(
            (6.0, 0.5),
            (0.90, 0.05),
            (0.80, 0.08),
            0.60,
            rim=0.25,
            cytoplasm=Cytoplasm((9.0, 0.9), (7.0, 0.6), 0.24, 0.16, offset_um=1.2, hof=0.3, opacity=0.6),
            weight=0.24,
        ),
    ),
    "mitotic": (
        Look((9.0, 1.1), (0.38, 0.07), (1.08, 0.08), 0.22, rim=0, wobble=0.20, power=2.6, cytoplasm=_CLEARED),
        Look((7.5, 1.1), (0.78, 0.10), (1.02, 0.10), 0.55, rim=0, wobble=0.26, cytoplasm=_CLEARED),
        Look(
            (7.4, 0.8),
            (0.32, 0.05),
            (1.06, 0.08),
            0.20,
            rim=0,
            wobble=0.16,
            power=2.6,
            lobes=(2, 2),
            lobe_gap_um=4.6,
            cytoplasm=_CLEARED,
            weight=0.25,
        ),
    ),
    "macrophage": (
        Look(
            (8.0, 1.1),
            (0.66, 0.11),
            (0.46, 0.08),
            0.46,
            rim=0.44,
            nucleoli=0.4,
            bend=0.30,
            cytoplasm=Cytoplasm((16.5, 2.6), (13.0, 2.0), 0.16, 0.05, offset_um=2.8, foam=0.75),
            weight=0.7,
        ),
        Look(
            (7.5, 1.0),
            (0.60, 0.12),
            (0.55, 0.08),
            0.42,
            rim=0.34,
            bend=0.30,
            cytoplasm=Cytoplasm((12.0, 1.8), (9.6, 1.4), 0.24, 0.07, offset_um=2.0, foam=0.4, opacity=0.7),
            weight=0.3,
        ),
    ),
    "other": (
        Look(  # neutrophil
            (3.4, 0.4),
            (0.80, 0.10),
            (0.96, 0.08),
            0.25,
            rim=0,
            lobes=(2, 4),
            lobe_gap_um=2.1,
            cytoplasm=Cytoplasm((8.8, 0.8), (8.0, 0.6), 0.20, 0.03, opacity=0.75),
            weight=0.48,
        ),
        Look(  # eosinophil
            (4.1, 0.4),
            (0.82, 0.08),
            (0.80, 0.08),
            0.30,
            rim=0.1,
            lobes=(2, 2),
            lobe_gap_um=3.3,
            cytoplasm=Cytoplasm((9.8, 0.9), (8.6, 0.8), 0.66, 0.02, offset_um=1.0, foam=-0.45),
            weight=0.26,
        ),
        Look(  # apoptotic body
            (4.1, 0.8),
            (0.88, 0.08),
            (1.12, 0.10),
            0.06,
            rim=0,
            lobes=(1, 3),
            lobe_gap_um=3.0,
            cytoplasm=_SHRUNKEN,
            weight=0.26,
        ),
    ),
}


@dataclass(frozen=True)
class Drawn:
    """One drawn cell: square patches (n, n) with odd n, float32, centred on the nucleus.

    Attributes:
        stain: Hematoxylin inside of the nucleus.
        cover: Opacity of the nucleus, 0 to 1; its outline is at 0.5.
        body: Opacity of the cytoplasm, all zero where the class has none.
        body_eosin: Eosin of the cytoplasm.
        body_hematoxylin: Hematoxylin of the cytoplasm.
    """

    stain: FloatArray
    cover: FloatArray
    body: FloatArray
    body_eosin: FloatArray
    body_hematoxylin: FloatArray


def draw_cell(
    generator: np.random.Generator, class_name: str, *, angle: float, mpp: float, seed: int, size_factor: float = 1.0
) -> Drawn:
    """Draw one nucleus with its cytoplasm.

    Args:
        generator: Source of randomness.
        class_name: Key of ``CLASSES``.
        angle: Direction of the long axis in radians, from the x axis towards the y axis.
        mpp: Micrometres per pixel.
        seed: Seed of the data set, whose fields share the noise that chromatin is cut from.
        size_factor: Factor on the nucleus' size; tumours of one patient are alike.
    """
    looks = CLASSES[class_name]
    weights = np.array([look.weight for look in looks])
    look = looks[int(generator.choice(len(looks), p=weights / weights.sum()))]
    length_um, ratio = _draw(generator, look.length_um) * size_factor, min(_draw(generator, look.ratio), 1.0)
    amount = _draw(generator, look.amount)
    lobes = int(generator.integers(look.lobes[0], look.lobes[1] + 1))
    soft = 1.7 if generator.random() < 0.10 else 0.75  # um over which the edge fades: some lie out of focus
    reach_um = length_um * 0.62 + look.lobe_gap_um * (lobes - 1) / 2 + soft
    if look.cytoplasm is not None:
        cell = look.cytoplasm
        reach_um = max(reach_um, (cell.length_um[0] + 2 * cell.length_um[1]) * 0.58 + cell.offset_um)
    half = int(np.ceil(reach_um / mpp)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32) * np.float32(mpp)
    x, y = axis[None, :], axis[:, None]

    radius = _nucleus_radius(generator, look, x, y, angle, length_um, ratio, lobes)
    short_um = length_um * ratio / 2
    cover = np.clip((1 - radius) * np.float32(short_um / soft) + np.float32(0.5), 0, 1)
    grain = _grain_crop(generator, seed, look.clump_um, mpp, 2 * half + 1)
    texture = 1 + np.float32(look.chromatin * 0.5) * grain
    if look.rim:
        texture += np.float32(look.rim) * np.exp(-(((radius - 0.86) / 0.17) ** 2))
    if generator.random() < look.nucleoli:
        dx, dy = generator.uniform(-0.22, 0.22, 2) * length_um * (1.0, ratio)
        texture += np.float32(0.9) * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / np.float32(2 * 0.62**2))
    stain = np.maximum(np.float32(amount) * texture, np.float32(0.25 * amount))
    body, body_eosin, body_hematoxylin = _cell_body(generator, look.cytoplasm, x, y, angle, mpp, seed)
    return Drawn(stain.astype(np.float32), cover.astype(np.float32), body, body_eosin, body_hematoxylin)


def _draw(generator: np.random.Generator, spread: Spread) -> float:
    return spread[0] + spread[1] * float(np.clip(generator.standard_normal(), -2, 2))


def _nucleus_radius(
    generator: np.random.Generator,
    look: Look,
    x: FloatArray,
    y: FloatArray,
    angle: float,
    length_um: float,
    ratio: float,
    lobes: int,
) -> FloatArray:
    """Distance from the nearest lobe's centre, 1 on the outline, float32 (n, n)."""
    wobble, bend = generator.uniform(0.3, 1.0) * look.wobble, generator.uniform(-1, 1) * look.bend
    nearest: FloatArray | None = None
    for lobe in range(lobes):
        turn, dx, dy = angle, 0.0, 0.0
        if lobes > 1:
            step = (lobe - (lobes - 1) / 2) * look.lobe_gap_um
            sag = 0.5 * step * step / look.lobe_gap_um if lobes > 2 else 0.0  # three or more lobes lie on an arc
            # Lobes stand across the line that joins them where they are bars (anaphase), anyhow where they are round.
            across = angle + np.pi / 2 if look.ratio[0] < 0.5 else angle
            dx, dy = step * np.cos(across) - sag * np.sin(across), step * np.sin(across) + sag * np.cos(across)
            turn = angle if look.ratio[0] < 0.5 else float(generator.uniform(0, np.pi))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u = (x - np.float32(dx)) * cos + (y - np.float32(dy)) * sin
        v = (y - np.float32(dy)) * cos - (x - np.float32(dx)) * sin
        a, b = np.float32(length_um / 2), np.float32(length_um * ratio / 2)
        if bend:
            v = v + np.float32(bend) * u * u / a
        radius = ((np.abs(u) / a) ** look.power + (np.abs(v) / b) ** look.power) ** np.float32(1 / look.power)
        theta = np.arctan2(v, u)
        phase = generator.uniform(0, 2 * np.pi, 2).astype(np.float32)
        radius = radius * (
            1 + np.float32(wobble) * (np.cos(3 * theta + phase[0]) + np.float32(0.5) * np.cos(5 * theta + phase[1]))
        )
        nearest = radius if nearest is None else np.minimum(nearest, radius)
    if nearest is None:  # no lobe at all: nothing is drawn
        nearest = np.full((len(y), x.shape[1]), 2.0, np.float32)
    return nearest.astype(np.float32)


def _cell_body(
    generator: np.random.Generator,
    cell: Cytoplasm | None,
    x: FloatArray,
    y: FloatArray,
    angle: float,
    mpp: float,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Opacity, eosin and hematoxylin of the cytoplasm, each float32 (n, n)."""
    size = x.shape[1]
    if cell is None:
        nothing = np.zeros((size, size), np.float32)
        return nothing, nothing, nothing
    turn = angle + generator.uniform(-0.5, 0.5)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = x * cos + y * sin - np.float32(cell.offset_um)
    v = y * cos - x * sin
    a, b = _draw(generator, cell.length_um) / 2, _draw(generator, cell.width_um) / 2
    radius = np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2)
    theta = np.arctan2(v, u)
    radius = radius * (1 + np.float32(0.06) * np.cos(3 * theta + np.float32(generator.uniform(0, 6))))
    body = np.clip((1 - radius) * np.float32(b / 1.2) + np.float32(0.5), 0, 1) * np.float32(cell.opacity)
    grain = _grain_crop(generator, seed, 0.7, mpp, size)
    eosin = np.float32(cell.eosin) * (1 + np.float32(0.12) * grain)
    if cell.foam:
        eosin = eosin - np.float32(cell.eosin * cell.foam) * np.clip(grain, 0, 1.3)
        eosin = eosin + np.float32(0.07) * np.exp(-(((radius - 0.93) / 0.08) ** 2))  # the cell's own edge
    hematoxylin = np.float32(cell.hematoxylin) * (1 + np.float32(0.15) * grain)
    if cell.hof:
        pale = np.exp(-((u + np.float32(0.05 * a)) ** 2 + v * v) / np.float32(2 * 1.5**2))
        eosin, hematoxylin = eosin * (1 - np.float32(cell.hof) * pale), hematoxylin * (1 - np.float32(cell.hof) * pale)
    return body.astype(np.float32), np.maximum(eosin, 0).astype(np.float32), hematoxylin.astype(np.float32)


@lru_cache(maxsize=16)
def _grain(seed: int, clump_um: float, mpp: float) -> FloatArray:
    generator = np.random.default_rng([seed, 103, round(clump_um * 1000)])
    return np.clip(periodic_noise(generator, clump_um / mpp, clump_um / mpp), -2, 2)


def _grain_crop(generator: np.random.Generator, seed: int, clump_um: float, mpp: float, size_px: int) -> FloatArray:
    grain = _grain(seed, clump_um, mpp)
    top, left = generator.integers(0, TEXTURE_PX - size_px, 2)
    return grain[top : top + size_px, left : left + size_px]
