# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from tral_monai.slides.jpeg_damage import jpeg_damage


@pytest.fixture
def stream(make_texture) -> bytes:
    return imagecodecs.jpeg8_encode(make_texture(256, 256), level=90)


def encode_flat(colour, side=256, **options):
    return imagecodecs.jpeg8_encode(np.full((side, side, 3), colour, np.uint8), level=80, **options)


def test_a_stream_that_was_not_written_to_its_end_is_named(stream):
    broken = stream[: len(stream) // 2] + bytes(len(stream) - len(stream) // 2)
    assert imagecodecs.jpeg8_decode(broken).shape == (256, 256, 3)  # libjpeg says nothing
    assert "bytes are zero: the file was not written to the end" in str(jpeg_damage(broken, 256, 256))


def test_a_hole_in_a_stream_is_named(stream):
    assert len(stream) > 20_000
    for start in (5_000, 8_191, 12_288):
        broken = stream[:start] + bytes(4096) + stream[start + 4096 :]
        assert str(jpeg_damage(broken, 256, 256)).startswith("it holds more than 1536 zeros in a row")


def test_whole_streams_are_left_alone(stream):
    assert jpeg_damage(stream, 256, 256) is None


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (128, 128, 128), (10, 200, 30)])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": "444", "optimize": True}])
def test_a_tile_of_one_colour_is_no_damage(colour, options):
    # Optimised Huffman tables give such tiles the longest runs of zeros that there are.
    for side in (64, 256, 1024):
        assert jpeg_damage(encode_flat(colour, side, **options), side, side) is None


def test_padding_behind_the_end_is_no_damage(stream):
    assert stream.endswith(b"\xff\xd9")
    assert jpeg_damage(stream + bytes(1), 256, 256) is None
    assert jpeg_damage(stream + bytes(500), 256, 256) is None
