"""Features of real encoded videos: against a plain loop, for any batch, window and worker; the cache; what is left alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ssvid.backbones import initialize_backbone
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError, DecodeError, RecipeError, SsvidError
from ssvid.features import extracting as features_module
from ssvid.features import reading
from ssvid.features.extracting import extract_features
from ssvid.video import available_decoders, content_id, open_video, scan_video
from ssvid.weights.checkpoints import weights_sha256
from tests.frozen import NUM_FRAMES, make_row


class CountingForward:
    """Counts the passes through a network."""

    def __init__(self, backbone):
        self.count = 0
        backbone.register_forward_hook(self)

    def __call__(self, *_):
        self.count += 1


def plain_features(backbone, manifest, row, first_frames, protocol):
    """What ``extract_features`` must give, without its reader, its batches and its columns."""
    backbone.eval()
    vectors = []
    with open_video(manifest.path_of(row), "pyav") as reader, torch.no_grad():
        for first in first_frames:
            frames = reader.frames_at(np.arange(first, first + protocol.num_frames)).float() / 255
            frames = v2.CenterCrop(protocol.crop_px)(v2.Resize(protocol.resize_px, antialias=True)(frames))
            maps = [backbone(frames.transpose(0, 1)[None], name)[0] for name in backbone.info.stage_names]
            vectors.append(torch.cat([m.mean(dim=(1, 2, 3)) for m in maps]))
    return torch.stack(vectors).mean(dim=0).numpy()


def test_features_are_those_of_a_plain_loop(backbone, manifest, quick):
    found = extract_features(backbone, manifest, manifest.rows[:5], quick)
    for row, vector in zip(manifest.rows, found.values_ND, strict=False):
        expected = plain_features(backbone, manifest, row, (0, NUM_FRAMES - quick.num_frames), quick)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert found.values_ND.dtype == np.float32
    assert found.ids == tuple(row.path for row in manifest.rows[:5])
    assert found.labels == ("blue",) * 5
    assert found.decoders == {"pyav": 5}
    assert not found.unreadable
    assert not found.padded


def test_columns_say_which_stage_is_where(backbone, manifest, quick):
    rows, stages = manifest.rows[:2], backbone.info.stages
    both = extract_features(backbone, manifest, rows, replace(quick, pool="avgmax"))
    assert list(both.stage_columns) == list(backbone.info.stage_names)
    assert [end - start for start, end in both.stage_columns.values()] == [2 * stage.channels for stage in stages]
    for stage in stages:
        alone = extract_features(backbone, manifest, rows, replace(quick, pool="avgmax", stages=stage.name))
        np.testing.assert_allclose(both.only(stage.name).values_ND, alone.values_ND, atol=1e-6)
    deepest, first = stages[-1], stages[0]
    turned = both.only(deepest.name, first.name)
    width = 2 * deepest.channels
    assert turned.stage_columns == {deepest.name: (0, width), first.name: (width, width + 2 * first.channels)}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_features_do_not_depend_on_the_batch(backbone, manifest, quick, batch_size):
    rows = manifest.rows[:7]
    one = extract_features(backbone, manifest, rows, quick)
    other = extract_features(backbone, manifest, rows, replace(quick, batch_size=batch_size))
    np.testing.assert_allclose(one.values_ND, other.values_ND, atol=1e-5)


def test_features_do_not_depend_on_the_workers(backbone, manifest, quick):
    rows = manifest.rows[:7]
    one = extract_features(backbone, manifest, rows, quick)
    other = extract_features(backbone, manifest, rows, replace(quick, workers=2))
    np.testing.assert_array_equal(one.values_ND, other.values_ND)


def test_a_spawned_worker_can_be_sent_the_videos(manifest, quick):
    import pickle

    dataset = reading._ClipDataset(
        manifest, [reading.Read(row, reading.even_starts(row, quick)) for row in manifest.rows], quick
    )
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3].clips_VTCHW, dataset[3].clips_VTCHW)


def test_videos_of_different_sizes_share_a_batch(backbone, manifest, quick, tmp_path):
    from ssvid.video import write_video

    large = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in _frames(manifest.rows[0], manifest)]
    write_video(tmp_path / "large.mp4", large, fps=25, crf=10)
    row = replace(manifest.rows[0], path="large.mp4", height=72, width=88, content_id="")
    mixed = Manifest(tmp_path, (row,))
    rows = manifest.rows[:1]
    small = extract_features(backbone, manifest, rows, quick).values_ND
    np.testing.assert_allclose(extract_features(backbone, mixed, [row], quick).values_ND, small, atol=0.1)


def _frames(row, manifest):
    with open_video(manifest.path_of(row)) as reader:
        return list(reader.frames_at(np.arange(row.num_frames)).permute(0, 2, 3, 1).numpy())


def test_a_window_is_a_video_of_its_own(backbone, manifest, quick):
    """Window [3, 11) of 8 frames holds exactly one clip of 8 frames, which starts at frame 3 of the file."""
    window = replace(manifest.rows[0], start_frame=3, end_frame=11)
    found = extract_features(backbone, manifest, [window], quick)
    expected = plain_features(backbone, manifest, window, (3,), quick)
    np.testing.assert_allclose(found.values_ND[0], expected, atol=1e-5)
    assert found.ids == (f"{window.path}#3-11",)
    assert not found.padded


def test_a_short_video_repeats_its_last_frame_and_is_listed(backbone, manifest, quick):
    rows = [manifest.rows[0], replace(manifest.rows[1], end_frame=5)]
    found = extract_features(backbone, manifest, rows, quick)
    assert found.padded == (f"{rows[1].path}#0-5",)
    assert found.readable.all()


def test_weights_statistics_and_flags_are_left_as_they_were(backbone, manifest, quick):
    backbone.train()
    backbone.get_submodule(backbone.info.stage_names[1]).eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    flags = [module.training for module in backbone.modules()]
    state = torch.get_rng_state()
    extract_features(backbone, manifest, manifest.rows[:4], replace(quick, workers=1))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert [module.training for module in backbone.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not p.is_inference() for p in backbone.parameters())


def test_an_unreadable_video_is_listed_and_never_substituted(backbone, manifest, quick, tmp_path):
    root = tmp_path
    good = make_row(root, "good.mp4", "red", "train", 0)
    cut = make_row(root, "cut.mp4", "red", "train", 1)
    (root / "cut.mp4").write_bytes(b"no video at all" * 100)
    known = replace(good, path="known.mp4", status="unreadable: moov atom not found")
    gone = make_row(root, "gone.mp4", "red", "train", 2)
    (root / "gone.mp4").unlink()
    rows = (good, replace(cut, content_id=""), known, gone)
    found = extract_features(backbone, Manifest(root, rows), rows, quick)
    assert found.readable.tolist() == [True, False, False, False]
    assert [listed.id for listed in found.unreadable] == ["cut.mp4", "known.mp4", "gone.mp4"]
    assert found.unreadable[1].reason == "unreadable: moov atom not found"
    assert "there is no such file" in found.unreadable[2].reason
    assert np.isnan(found.values_ND[1:]).all()


def test_nothing_readable_is_an_error(backbone, manifest, quick, tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 videos could be read \(train/blue/0.mp4: .*Set data.root"):
        extract_features(backbone, Manifest(tmp_path, manifest.rows), manifest.rows[:2], quick)


def test_a_file_that_is_not_the_manifests_is_an_error(backbone, quick, tmp_path):
    row = make_row(tmp_path, "a.mp4", "red", "train", 0)
    make_row(tmp_path, "a.mp4", "blue", "train", 1)
    with pytest.raises(
        DataError, match=r"1 of 1 files are not those of the manifest, the first is 'a.mp4'.*data index"
    ):
        extract_features(backbone, Manifest(tmp_path, (row,)), [row], quick)


def skip_without(decoder):
    """A decoder may be installed and still not work, where FFmpeg's libraries are missing."""
    status = available_decoders()[decoder]
    if not status.works:
        pytest.skip(f"{decoder}: {status.problem}")


def test_a_forced_decoder_that_is_wrong_for_a_file_is_an_error(backbone, manifest, quick):
    skip_without("decord")
    with pytest.raises(DataError, match=r"'decord'.*wrong for 2 of 2, the first 'train/blue/0.mp4'.*decoder=auto"):
        extract_features(backbone, manifest, manifest.rows[:2], replace(quick, decoder="decord"))
    with pytest.raises(SsvidError, match=r"decoder .'decrod'. is not known"):
        extract_features(backbone, manifest, manifest.rows[:2], replace(quick, decoder="decrod"))


def test_a_diverged_network_is_an_error(backbone, manifest, quick):
    with torch.no_grad():
        list(backbone.parameters())[-1].fill_(torch.nan)
    with pytest.raises(SsvidError, match="tiny3d gives features that are not finite"):
        extract_features(backbone, manifest, manifest.rows[:2], quick)


def test_a_process_that_dies_names_the_video(backbone, manifest, quick, monkeypatch):
    def die(self, row, starts):
        import os

        if row.path == manifest.rows[1].path:
            os._exit(1)
        return torch.zeros(2, 8, 3, 30, 30, dtype=torch.uint8)

    monkeypatch.setattr(reading._ClipDataset, "_read", die)
    with pytest.raises(DecodeError, match=r"train/blue/[01].mp4: a reading process died"):
        extract_features(backbone, manifest, manifest.rows[:2], replace(quick, workers=1))


def test_progress_counts_videos(backbone, manifest, quick):
    seen = []
    extract_features(
        backbone, manifest, manifest.rows[:7], quick, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(4, 7), (7, 7)]


# ---- the cache


def test_the_cache_is_used_when_nothing_changed(backbone, manifest, quick, tmp_path):
    forward = CountingForward(backbone)
    first = extract_features(backbone, manifest, manifest.rows[:5], quick, cache_dir=tmp_path)
    passes = forward.count
    relabeled = [replace(row, label="other") for row in manifest.rows[:5]]
    again = extract_features(backbone, manifest, relabeled, replace(quick, batch_size=2, workers=1), cache_dir=tmp_path)
    assert forward.count == passes > 0
    assert again.from_cache
    assert not first.from_cache
    np.testing.assert_array_equal(first.values_ND, again.values_ND)
    assert again.labels == ("other",) * 5  # labels are not features: they come from the rows
    assert (again.ids, again.stage_columns, again.weights_sha256) == (
        first.ids, first.stage_columns, first.weights_sha256
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 7},
        {"stride_frames": 2, "num_frames": 4},
        {"num_clips": 1},
        {"resize_px": 30},
        {"crop_px": 20},
        {"stages": "stage4"},
        {"pool": "avgmax"},
        {"decoder": "torchcodec"},
    ],
)
def test_the_cache_is_not_used_when_the_protocol_changed(backbone, manifest, quick, tmp_path, change):
    skip_without(change.get("decoder", "pyav"))
    rows = [replace(row, decoders_ok=("pyav", "torchcodec")) for row in manifest.rows[:2]]
    quick = replace(quick, decoder="pyav")
    extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert not extract_features(backbone, manifest, rows, replace(quick, **change), cache_dir=tmp_path).from_cache


def test_the_cache_is_not_used_when_network_or_rows_changed(backbone, manifest, quick, tmp_path):
    rows = manifest.rows[:3]

    def cached(network=backbone, rows=rows):
        return extract_features(network, manifest, rows, quick, cache_dir=tmp_path).from_cache

    assert not cached()
    assert cached()
    assert cached(rows=rows[:2]) and cached(rows=rows[::-1]), "each video by itself"
    assert not cached(rows=[replace(rows[0], end_frame=9), *rows[1:]])
    assert not cached(rows=[replace(rows[0], gray_range=(0, 100)), *rows[1:]])
    assert not cached(network=initialize_backbone("tiny3d", {"width": 4, "stride_time": 2}, seed=0))  # same weights
    with torch.no_grad():
        next(m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm3d)).running_mean[0] += (
            1e-6  # one buffer by a hair
        )
    assert not cached()
    backbone.std_C111 += 1e-6  # not even in the state dict
    assert not cached()


def test_a_file_with_other_content_is_not_taken_from_the_cache(backbone, quick, tmp_path):
    root, cache = tmp_path / "videos", tmp_path / "cache"
    row = make_row(root, "a.mp4", "red", "train", 0)
    extract_features(backbone, Manifest(root, (row,)), [row], quick, cache_dir=cache)
    other = make_row(root, "a.mp4", "red", "train", 1)
    assert not extract_features(backbone, Manifest(root, (other,)), [other], quick, cache_dir=cache).from_cache


def test_a_video_that_failed_by_surprise_is_tried_again(backbone, manifest, quick, tmp_path):
    rows = [manifest.rows[0], replace(manifest.rows[1], path="train/blue/away.mp4")]
    first = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert len(first.unreadable) == 1
    away = manifest.path_of(rows[1])
    shutil.copy(manifest.path_of(manifest.rows[1]), away)
    try:
        found = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    finally:
        away.unlink()
    assert found.unreadable == () and found.readable.all()
    np.testing.assert_array_equal(found.values_ND[0], first.values_ND[0])


def test_what_the_index_calls_unreadable_is_cached_with_its_word(backbone, manifest, quick, tmp_path):
    rows = [manifest.rows[0], replace(manifest.rows[1], status="unreadable: cut off")]
    first = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    again = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert again.from_cache
    assert again.unreadable == first.unreadable
    np.testing.assert_array_equal(again.values_ND, first.values_ND)


def test_a_damaged_cache_is_computed_again(backbone, manifest, quick, tmp_path):
    rows = manifest.rows[:2]
    first = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.vectors")
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", whole[:3], b"another file" * 30):
        for other in tmp_path.rglob("*.vectors"):
            other.unlink()
        file.write_bytes(damage)
        again = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
        assert not again.from_cache
        np.testing.assert_array_equal(again.values_ND, first.values_ND)


@pytest.mark.parametrize("place", ["start", "sizes", "head", "names", "first value", "last value", "digest"])
def test_one_flipped_byte_in_the_cache_is_found(backbone, manifest, quick, tmp_path, place):
    rows = manifest.rows[:2]
    first = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.vectors")
    content = bytearray(file.read_bytes())
    where = {
        "start": 0,
        "sizes": 9,
        "head": content.index(b"stages"),
        "names": content.index(b"vectors") + 15,
        "first value": len(content) - 32 - first.values_ND.nbytes,
        "last value": len(content) - 33,
        "digest": len(content) - 1,
    }[place]
    content[where] ^= 1
    file.write_bytes(content)
    again = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert not again.from_cache
    np.testing.assert_array_equal(again.values_ND, first.values_ND)
    assert extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path).from_cache  # it was mended


def test_large_features_are_mapped_and_small_ones_read(backbone, manifest, quick, tmp_path, monkeypatch):
    rows = manifest.rows[:3]
    first = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert not isinstance(extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path).values_ND, np.memmap)
    monkeypatch.setattr(features_module, "_MAPPED_FROM_BYTES", 0)
    mapped = extract_features(backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert isinstance(mapped.values_ND, np.memmap) and mapped.from_cache
    assert mapped.readable.all()
    np.testing.assert_array_equal(mapped.values_ND, first.values_ND)
    (file,) = tmp_path.rglob("*.vectors")
    content = file.read_bytes()
    file.unlink()
    gone = [replace(rows[0], status="unreadable: cut off"), *rows[1:]]
    for again in (rows, gone):  # in a nameless file, which leaves nothing behind
        computed = extract_features(backbone, manifest, again, quick, cache_dir=tmp_path)
        assert isinstance(computed.values_ND, np.memmap)
        assert computed.readable.tolist() == [row.is_readable for row in again]
        np.testing.assert_array_equal(computed.values_ND[1:], first.values_ND[1:])
    (again,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert again.read_bytes() == content


def test_batch_norm_of_the_frozen_backbone_uses_its_running_statistics(backbone, manifest, quick):
    """Statistics that no batch has: were it in training mode, they would play no part and the features be others."""
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert norms
    for norm in norms:
        norm.running_mean += 0.5
        norm.running_var *= 4.0
    backbone.train()
    row = manifest.rows[0]
    found = extract_features(backbone, manifest, manifest.rows[:4], quick)
    assert all(norm.training for norm in norms)
    clips = (0, NUM_FRAMES - quick.num_frames)
    np.testing.assert_allclose(found.values_ND[0], plain_features(backbone, manifest, row, clips, quick), atol=1e-5)
    for norm in norms:  # what the statistics of the batch itself would give
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    by_batch = extract_features(backbone, manifest, manifest.rows[:4], quick)
    assert np.abs(by_batch.values_ND - found.values_ND).max() > 0.1


def test_pooling_in_blocks_keeps_the_places(backbone, manifest, quick):
    """24 px and 8 frames: each stage has its own number of cells, and the columns say how many."""
    found = extract_features(backbone, manifest, manifest.rows[:2], replace(quick, pool="max1x2x2"))
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 8, 24, 24), backbone.info.stage_names)
    for (start, end), map_ in zip(found.stage_columns.values(), maps, strict=True):
        channels, frames, height, width = map_.shape[1:]
        assert end - start == channels * frames * max(height // 2, 1) * max(width // 2, 1)


def test_weights_have_one_name_wherever_they_lie(backbone):
    before = weights_sha256(backbone.state_dict())
    for parameter in backbone.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    assert weights_sha256(backbone.state_dict()) == before


# ---- what does not fit


def test_a_protocol_that_does_not_fit_says_all_that_is_wrong(backbone, manifest, quick):
    wrong = replace(quick, num_frames=0, pool="max", resize_px=10, workers=-1)
    with pytest.raises(RecipeError) as caught:
        extract_features(backbone, manifest, manifest.rows[:1], wrong)
    lines = str(caught.value).splitlines()
    assert lines[0] == ("features.num_frames (0) must be at least 1 for backbone tiny3d. Set features.num_frames=16.")
    assert "features.resize_px (10) must be at least the crop, 24. Set features.resize_px=0 (automatic)." in lines
    assert (
        "features.pool ('max') must be one of avg, avgmax, max1x2x2, frames (did you mean 'avgmax'?). Set features.pool=avg."
        in lines
    )
    assert "features.workers (-1) must be at least 0. Set features.workers=2." in lines


def test_a_clip_shorter_than_the_network_needs_is_refused(manifest, quick):
    network = initialize_backbone("tiny3d", {"width": 4, "input": "difference"})
    with pytest.raises(RecipeError, match=r"features.num_frames \(1\) must be at least 2 for backbone tiny3d"):
        extract_features(network, manifest, manifest.rows[:1], replace(quick, num_frames=1))


def test_a_clip_longer_than_the_network_takes_is_refused(manifest, quick):
    network = initialize_backbone("early_fusion", {"num_frames": 4})
    rule = r"features.num_frames \(16\) must be at most 4 for backbone early_fusion. Set features.num_frames=4."
    with pytest.raises(RecipeError, match=rule):
        extract_features(network, manifest, manifest.rows[:1], replace(quick, num_frames=16))


# ---- elsewhere


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_the_cpu(backbone, manifest, quick):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cpu = extract_features(backbone, manifest, manifest.rows[:7], quick).values_ND
    gpu = extract_features(backbone, manifest, manifest.rows[:7], quick, device="cuda").values_ND
    np.testing.assert_allclose(gpu, cpu, atol=1e-4)


@pytest.mark.real
@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "weizmann"])
def test_the_fastest_decoder_gives_the_features_of_pyav(backbone, quick, real_data, dataset):
    """On real files, some with B-frames: another frame anywhere would move the features by far more than the codec."""
    root = real_data / dataset
    files = sorted((p for p in root.rglob("*.avi")), key=lambda path: path.stat().st_size)[:3]
    rows = [_scanned(root, file) for file in files]
    manifest = Manifest(root, tuple(rows))
    auto = extract_features(backbone, manifest, rows, quick)
    exact = extract_features(backbone, manifest, rows, replace(quick, decoder="pyav"))
    assert len(rows) == 3
    assert not auto.unreadable
    np.testing.assert_allclose(auto.values_ND, exact.values_ND, atol=0.02)


def _scanned(root, file):
    scan = scan_video(file)
    info = scan.info
    return VideoRow(
        file.relative_to(root).as_posix(),
        info.num_frames,
        info.fps,
        info.height,
        info.width,
        decoders_ok=scan.decoders_ok,
        content_id=content_id(file),
    )
