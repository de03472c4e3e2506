"""What a file is known by."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ssvid.video import content_id, quick_id
from ssvid.video.identity import identity_like, is_quick
from ssvid.video.progress import listen


@pytest.mark.parametrize("size", [0, 10, 65_536, 262_144, 700_000])
def test_identities_by_their_definition(size: int, tmp_path: Path) -> None:
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "a"
    path.write_bytes(data)
    ends = size.to_bytes(8, "little") + data[:65_536] + data[max(size - 65_536, 0) :]
    assert content_id(path) == hashlib.sha256(data).hexdigest(), "as sha256sum prints it"
    assert quick_id(path) == hashlib.sha256(ends).hexdigest()[:32], "as it ever was"
    assert (is_quick(quick_id(path)), is_quick(content_id(path)), is_quick("")) == (True, False, False)
    assert {identity_like(known, path) for known in (quick_id(path), content_id(path))} == {
        quick_id(path),
        content_id(path),
    }


def test_one_byte_anywhere_makes_another_content(tmp_path: Path) -> None:
    """Files of one size with the same beginning and end, which the quick identity takes for one."""
    data = np.random.default_rng(0).bytes(300_000)
    contents, quick = set(), set()
    for place in (None, 70_000, 131_072, 150_001, 229_000):
        changed = bytearray(data)
        if place is not None:
            changed[place] ^= 1
        (tmp_path / "a").write_bytes(changed)
        contents.add(content_id(tmp_path / "a"))
        quick.add(quick_id(tmp_path / "a"))
    assert (len(contents), len(quick)) == (5, 1)


def test_a_large_file_gives_signs_of_life_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    beats: list[float] = []
    listen(beats.append)
    try:
        content_id(tmp_path / "a")
    finally:
        listen(None)
    assert len(beats) >= 10
