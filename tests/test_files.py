"""Files are whole or as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssvid.files import write_atomic, write_json


def test_atomic_writing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file: Any) -> None:
        file.write(b"half of the ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    write_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"], "temporary files stay behind"


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert len(list(tmp_path.iterdir())) == 1
