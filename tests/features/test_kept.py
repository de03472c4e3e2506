"""Kept vectors: whole or not there, whoever was killed, whoever writes beside, and where nothing can be written."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.errors import DataError, DiskFull
from ssvid.features import kept as kept_module
from ssvid.features.extracting import extract_features
from ssvid.features.file import EmbedProtocol, embed_videos
from ssvid.features.kept import Kept, read_place


def vectors(*numbers, width=3):
    return {f"video {n}": np.full((2, width), n, dtype=np.float32) for n in numbers}


def held(folder):
    """What a reader finds."""
    return {record.name: record.values.copy() for record in Kept(folder).records()}


def test_what_was_put_is_found_by_name_and_by_place(tmp_path):
    kept = Kept(tmp_path / "new" / "folder")
    kept.put(vectors(1, 2), {"stages": {"a": 3}})
    kept.put({}, {})
    kept.put({"odd": np.arange(5)}, {"stages": {"a": 5}})
    records = list(kept.records())
    assert [record.name for record in records] == ["video 1", "video 2", "odd"]
    assert [record.about["stages"]["a"] for record in records] == [3, 3, 5]
    for record in records:
        np.testing.assert_array_equal(read_place(record.place), record.values)
    np.testing.assert_array_equal(records[2].values, np.arange(5, dtype=np.float32))
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1


def test_nothing_is_kept_without_a_folder(tmp_path):
    kept = Kept(None)
    kept.put(vectors(1), {})
    assert list(kept.records()) == [] and list(Kept(tmp_path / "none").records()) == []


def test_cut_off_anywhere_the_records_before_are_found(tmp_path):
    kept = Kept(tmp_path)
    kept.put(vectors(1), {})
    (file,) = tmp_path.iterdir()
    first = file.stat().st_size
    kept.put(vectors(2, 3), {})
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        assert set(held(tmp_path)) == ({"video 1"} if end >= first else set()), "a record is there whole or not at all"
    other = Kept(tmp_path)  # the next process does not write behind the torn end
    other.put(vectors(2), {})
    assert set(held(tmp_path)) == {"video 1", "video 2"}


def test_a_flipped_bit_anywhere_costs_no_other_record_but_those_behind_its_sizes(tmp_path):
    kept = Kept(tmp_path)
    kept.put(vectors(1), {})
    (file,) = tmp_path.iterdir()
    end = file.stat().st_size
    kept.put(vectors(2), {})
    whole = file.read_bytes()
    for place in range(end):
        content = bytearray(whole)
        content[place] ^= 64
        file.write_bytes(content)
        found = held(tmp_path)
        assert "video 1" not in found
        assert ("video 2" in found) is (place >= 20), "the sizes say where the next one starts"
        assert all(np.array_equal(values, vectors(2)["video 2"]) for values in found.values())


def test_two_writers_have_files_of_their_own_and_the_older_vector_counts(tmp_path):
    one, other = Kept(tmp_path), Kept(tmp_path)
    one.put(vectors(1), {})
    other.put({"video 1": np.zeros((2, 3)), **vectors(2)}, {})
    one.put(vectors(3), {})
    assert len(list(tmp_path.iterdir())) == 2
    first = {}
    for record in Kept(tmp_path).records():
        first.setdefault(record.name, record.values[0, 0])
    assert first == {"video 1": 1, "video 2": 2, "video 3": 3}


def test_killed_at_any_moment_nothing_wrong_is_read(tmp_path):
    """SIGKILL while records of 4 MB are written; a reader looks on meanwhile."""
    code = (
        "import sys, numpy as np; from pathlib import Path; from ssvid.features.kept import Kept\n"
        "kept = Kept(Path(sys.argv[1])); values = np.ones((1000, 1000))\n"
        "for n in range(10_000): kept.put({str(n): values * n}, {})\n"
    )
    for moment in (0.0, 0.011, 0.023, 0.04):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"{moment}")])
        deadline = time.monotonic() + 60
        while not held(tmp_path / f"{moment}") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        found = held(tmp_path / f"{moment}")
        assert list(found) == [str(n) for n in range(len(found))] and found
        assert all((values == int(name)).all() for name, values in found.items())


def extracted(barrier, queue, *arguments):
    torch.set_num_threads(1)
    barrier.wait()
    queue.put(extract_features(*arguments[:-1], cache_dir=arguments[-1]).values_ND)


def test_two_processes_at_once_fill_one_cache(backbone, manifest, quick, tmp_path):
    torch.set_num_threads(1)  # or OpenMP hangs after a fork
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(2)
    arguments = (barrier, queue, backbone, manifest, manifest.rows[:10], quick, tmp_path)
    processes = [context.Process(target=extracted, args=arguments, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    both = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    found = extract_features(backbone, manifest, manifest.rows[:10], quick, cache_dir=tmp_path)
    assert found.from_cache and all(np.array_equal(values, found.values_ND) for values in both)


def limited(bytes_, run):
    """Run with files of at most so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        return run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_a_record_is_taken_back(tmp_path):
    kept = Kept(tmp_path)
    kept.put(vectors(1), {})
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    with pytest.raises(DiskFull):
        limited(len(before) + 40, lambda: kept.put(vectors(2), {}))
    assert file.read_bytes() == before
    kept.put(vectors(2), {})
    assert set(held(tmp_path)) == {"video 1", "video 2"}


def test_an_evaluation_goes_on_where_the_disk_is_full_and_embed_stops(backbone, manifest, quick, tmp_path):
    rows = manifest.rows[:6]
    expected = extract_features(backbone, manifest, rows, quick)
    with pytest.warns(UserWarning, match="features are not kept for the next time: .* are left in"):
        found = limited(100, lambda: extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path / "cache"))
    assert found.values_ND.tobytes() == expected.values_ND.tobytes()
    with pytest.raises(DiskFull):
        limited(300, lambda: embed_videos(backbone, manifest.with_rows(rows), EmbedProtocol(quick), tmp_path / "f.npz"))
    embed_videos(backbone, manifest.with_rows(rows), EmbedProtocol(quick), tmp_path / "f.npz")
    assert (tmp_path / "f.npz").is_file()


def test_a_cache_that_cannot_be_written_is_read_and_what_is_missing_computed(
    backbone, manifest, quick, tmp_path, monkeypatch
):
    extract_features(backbone, manifest, manifest.rows[:4], quick, cache_dir=tmp_path)

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(kept_module, "_append", refuse)  # root may write everywhere
    whole = extract_features(backbone, manifest, manifest.rows[:4], quick, cache_dir=tmp_path)
    assert whole.from_cache
    with pytest.warns(UserWarning, match="features are not kept for the next time: .*Permission denied") as told:
        more = extract_features(backbone, manifest, manifest.rows[:12], quick, cache_dir=tmp_path)
    assert len(told) == 1, "once, not for each block"
    assert more.readable.all() and not more.from_cache
    np.testing.assert_array_equal(more.values_ND[:4], whole.values_ND)
    embedding = EmbedProtocol(replace(quick, num_clips=1))
    with pytest.raises(PermissionError):
        embed_videos(backbone, manifest, embedding, tmp_path / "f.npz")


def test_what_an_earlier_version_kept_is_left_alone(backbone, manifest, quick, tmp_path):
    old = tmp_path / f"features-{'0' * 40}.safetensors"
    old.write_bytes(b"old")
    assert not extract_features(backbone, manifest, manifest.rows[:2], quick, cache_dir=tmp_path).from_cache
    assert old.read_bytes() == b"old" and os.listdir(tmp_path) != [old.name]


def test_a_probe_that_was_killed_goes_on_block_by_block(backbone, manifest, quick, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done >= 8:
            raise Killed

    rows = manifest.rows[:12]
    with pytest.raises(Killed):
        extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path, progress=kill)
    seen = []
    found = extract_features(
        backbone, manifest, rows, quick, cache_dir=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(8, 12), (12, 12)]
    assert found.values_ND.tobytes() == extract_features(backbone, manifest, rows, quick).values_ND.tobytes()
    with pytest.raises(DataError, match="none of the 1 videos could be read"):
        extract_features(backbone, manifest, [replace(rows[0], status="unreadable: x")], quick, cache_dir=tmp_path)
