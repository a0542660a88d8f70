# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.annotations.nuclei.image_table import ImageRow, read_image_table
from tral_monai.errors import AnnotationError


def test_rows_by_stem_with_empty_cells(tmp_path):
    (tmp_path / "images.csv").write_text("Image,patient,mpp,slide\na.png,p1,0.5,\nb.1,,,s2\n")
    assert read_image_table(tmp_path, ["a", "b.1", "c"]) == {
        "a": ImageRow(patient="p1", mpp=0.5),
        "b.1": ImageRow(slide="s2"),
    }
    assert read_image_table(tmp_path / "other", ["a"]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient\n", r"images\.csv: expected the column image and any of .*, but found \['name', 'patient'\]"),
        ("image,pateint\n", "but found .*'pateint'"),
        ("", r"but found \[\]"),
        ("image\nz.png\n", "there is no image 'z.png' in"),
        ("image\na.png\na\n", "the image 'a' has two rows"),
        ("image,mpp\na,half\n", "mpp of 'a' must be a positive number of micrometres per pixel, but is 'half'"),
        ("image,mpp\na,-1\n", "but is '-1'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_image_table(tmp_path, ["a"])
