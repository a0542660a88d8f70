# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.batch import checked_batch, required_generator, rgb_like


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_batches_of_one_and_of_three_scales_pass(dtype: torch.dtype) -> None:
    for channels in (3, 9):
        image = torch.zeros(2, channels, 4, 4, dtype=dtype)
        assert checked_batch(image) is image


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 0, 4, 4), (9, 4, 4), (2, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected \(B, 3 \* scales, H, W\) RGB, but got \["):
        checked_batch(torch.zeros(shape))


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"as uint8 or float on the scale 0 to 255, but got torch\.int16"):
        checked_batch(torch.zeros(1, 3, 4, 4, dtype=torch.int16))


def test_values_come_back_in_range_and_dtype() -> None:
    values = torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0])
    assert rgb_like(values, torch.zeros(1, dtype=torch.uint8)).tolist() == [0, 0, 1, 255, 255]
    assert rgb_like(values, torch.zeros(1)).tolist() == pytest.approx([0.0, 0.4, 0.6, 254.6, 255.0])
    assert rgb_like(values, torch.zeros(1, dtype=torch.float16)).dtype == torch.float16


def test_random_transforms_need_a_generator() -> None:
    generator = torch.Generator()
    assert required_generator(generator, object()) is generator
    with pytest.raises(ConfigError, match=r"object is random: call it with a torch\.Generator"):
        required_generator(None, object())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_random_transforms_draw_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match=r"object draws on the CPU, .* got cuda"):
        required_generator(torch.Generator(device="cuda"), object())
