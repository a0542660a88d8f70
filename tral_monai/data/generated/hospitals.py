# SPDX-License-Identifier: Apache-2.0
"""The two hospitals of the generated cohort: what their stain and their scanner do to the same tissue."""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Hospital:
    """Stain and scanner of one hospital.

    Attributes:
        name: Prefix of its patients' ids.
        mpp: Micrometres per pixel at level 0.
        hematoxylin: Optical density of hematoxylin in red, green and blue, unit norm.
        eosin: Same for eosin.
        blood_pigment: Same for red blood cells, which are more orange than eosin.
        char: Same for burnt tissue.
        hematoxylin_strength: Factor on the amount of hematoxylin.
        eosin_strength: Factor on the amount of eosin.
        glass: RGB of empty glass, 0 to 255.
        optics_taps: Weight of each neighbour in the scanner's 3-tap blur along each axis, 0 to 0.33.
        noise_levels: Standard deviation of the camera's noise, in grey levels.
        jpeg_quality: Quality of the JPEG tiles, 1 to 100.
    """

    name: str
    mpp: float
    hematoxylin: Triple
    eosin: Triple
    blood_pigment: Triple
    char: Triple
    hematoxylin_strength: float
    eosin_strength: float
    glass: Triple
    optics_taps: float
    noise_levels: float
    jpeg_quality: int


# A: a scanner at exactly 40x (0.25), purple hematoxylin, salmon eosin, sharp, slightly warm white.
HOSPITAL_A = Hospital(
    name="A",
    mpp=0.25,
    hematoxylin=(0.583, 0.711, 0.393),
    eosin=(0.164, 0.862, 0.480),
    blood_pigment=(0.060, 0.690, 0.720),
    char=(0.450, 0.590, 0.670),
    hematoxylin_strength=0.86,
    eosin_strength=0.62,
    glass=(243.0, 242.0, 240.0),
    optics_taps=0.12,
    noise_levels=1.6,
    jpeg_quality=85,
)

# B: 0.23 is what a common 40x scanner of another maker records. No pyramid level then has the magnification that is
# asked for, so every read goes through resampling, and the file costs hardly more pixels than A's (a 20x scanner would
# save pixels but hide what only 40x shows). Bluer hematoxylin, pinker and weaker eosin, softer optics, more noise.
HOSPITAL_B = Hospital(
    name="B",
    mpp=0.23,
    hematoxylin=(0.690, 0.672, 0.269),
    eosin=(0.075, 0.953, 0.294),
    blood_pigment=(0.030, 0.780, 0.625),
    char=(0.450, 0.590, 0.670),
    hematoxylin_strength=1.0,
    eosin_strength=0.54,
    glass=(236.0, 238.0, 244.0),
    optics_taps=0.22,
    noise_levels=2.6,
    jpeg_quality=75,
)

HOSPITALS = (HOSPITAL_A, HOSPITAL_B)
