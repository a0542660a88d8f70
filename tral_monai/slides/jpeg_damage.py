# SPDX-License-Identifier: Apache-2.0
"""Damage of a JPEG tile that its decoder passes over in silence: parts of the file that were never written.

A copy that broke off, or a failing disk, leaves blocks of zeros. libjpeg fills what it cannot decode with grey and
warns at most, so that a model would see a grey tile where there is tissue.
"""

from __future__ import annotations

_END = b"\xff\xd9"
_PADDING_BYTES = 64  # of zeros that a writer may leave behind the end


def jpeg_damage(data: bytes, width: int, height: int) -> str | None:
    """Tell what is missing of a JPEG stream.

    Args:
        data: the stream, from the tile's first byte to its last.
        width: of the tile in pixels.
        height: of the tile in pixels.

    Returns:
        What is wrong, None where nothing is seen. Other damage than missing data is for the decoder to find, and cannot
        be found at all where the stream stays valid: TIFF has no checksums.
    """
    if data[-1] == 0:
        end = data.rstrip(b"\0")
        if len(data) - len(end) > _PADDING_BYTES and not end.endswith(_END):
            return f"its last {len(data) - len(end)} bytes are zero: the file was not written to the end"
    longest = _longest_zeros(width, height)
    # A run of that length covers a multiple of half of it: few bytes need to be looked at.
    if 0 in data[:: longest // 2] and bytes(longest) in data:
        return f"it holds more than {longest} zeros in a row: a part of the file was not written"
    return None


def _longest_zeros(width: int, height: int) -> int:
    """Most zero bytes in a row that a valid stream can hold.

    A block of 8 x 8 in one colour takes at least a code for its mean and one for the end of the block. Where Huffman
    tables make both all zeros, they have two bits at most; a tile has three blocks per 8 x 8 pixels at most.
    """
    blocks = 3 * -(-width // 8) * -(-height // 8)
    return max(blocks * 4 // 8, 512)
