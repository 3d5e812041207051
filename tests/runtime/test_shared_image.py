"""The shared image: both sides see the same arrays; another user's, another build's or an impossible file is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from agent.runtime.errors import ImageError
from agent.runtime.image import Block, SharedImage, layout_from_json, layout_json, private_arrays

BLOCKS = [
    Block("progress", "i8", (4,)),
    Block("g0.args", "f8", (3, 5)),
    Block("g0.text", "u1", (5, 64)),
    Block("empty", "f8", (0,)),
]


def test_both_sides_see_the_same_arrays(tmp_path: Path) -> None:
    ours = SharedImage(tmp_path / "image", BLOCKS, create=True)
    theirs = SharedImage(tmp_path / "image", layout_from_json(layout_json(BLOCKS)), create=False)
    ours["g0.args"][1, 2] = 21.5
    theirs["progress"][3] = -1
    assert theirs["g0.args"][1, 2] == 21.5
    assert ours["progress"].tolist() == [0, 0, 0, -1]
    assert ours["g0.args"].flags.c_contiguous and ours["g0.args"].ctypes.data % 64 == 0


def test_new_image_is_all_zero_and_private(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"left by an older process")
    image = SharedImage(tmp_path / "image", BLOCKS, create=True)
    assert all(not array.any() for array in image.arrays.values())
    assert stat.S_IMODE((tmp_path / "image").stat().st_mode) == 0o600


def test_private_arrays_have_the_same_shapes() -> None:
    arrays = private_arrays(BLOCKS)
    assert {name: (array.dtype.kind, array.shape) for name, array in arrays.items()} == {
        "progress": ("i", (4,)),
        "g0.args": ("f", (3, 5)),
        "g0.text": ("u", (5, 64)),
        "empty": ("f", (0,)),
    }


def test_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    SharedImage(tmp_path / "image", BLOCKS, create=True)
    same_size = [Block("progress", "i8", (4,)), Block("g1.args", "f8", (3, 5)), *BLOCKS[2:]]
    with pytest.raises(ImageError, match="has another layout: core and operate are of different builds"):
        SharedImage(tmp_path / "image", same_size, create=False)
    with pytest.raises(ImageError, match="another size than its layout says"):
        SharedImage(tmp_path / "image", [*BLOCKS, Block("more", "f8", (100,))], create=False)


def test_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    SharedImage(tmp_path / "real", BLOCKS, create=True)
    (tmp_path / "image").symlink_to(tmp_path / "real")
    with pytest.raises(ImageError, match=r"cannot open .*image"):
        SharedImage(tmp_path / "image", BLOCKS, create=False)
    SharedImage(tmp_path / "image", BLOCKS, create=True)
    assert not (tmp_path / "image").is_symlink()


def test_missing_file_says_what_to_look_for(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is core running"):
        SharedImage(tmp_path / "image", BLOCKS, create=False)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="run folder must be writable"):
        SharedImage(tmp_path / "nowhere" / "image", BLOCKS, create=True)


def test_image_beyond_the_bound_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="split the site over several agents"):
        SharedImage(tmp_path / "image", [Block("huge", "f8", (1 << 28, 2))], create=True)
    assert not (tmp_path / "image").exists()


def test_full_disk_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(ImageError, match=r"no room for the image of .* No space left"):
        SharedImage(tmp_path / "image", BLOCKS, create=True)


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[["a","f8"]]', '[["a","f8",[1,"x"]]]', '[["a","f8",5]]', "null"])
def test_layout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="layout cannot be read"):
        layout_from_json(text)


def test_layout_survives_the_trip() -> None:
    assert layout_from_json(layout_json(BLOCKS)) == BLOCKS
    assert np.dtype(BLOCKS[1].dtype).itemsize == 8
