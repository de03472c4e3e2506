"""What the baselines show a network, and the defects of released scripts: read from encoded videos, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.evals.histograms import Histograms, as_histograms, change_histogram, color_histogram
from ssvid.features.extracting import extract_features
from ssvid.features.protocol import BaselineProtocol
from ssvid.features.reading import frame_order, read_videos
from ssvid.recipe.schema import ProbeRecipe
from tests.frozen import ask, beside, labeled


def clips(manifest, protocol):
    return [item.clips_VTCHW for item in read_videos(manifest, manifest.rows[:4], protocol)]


def test_a_single_frame_is_the_middle_one_of_each_clip(manifest, quick):
    whole, single = clips(manifest, quick), clips(manifest, replace(quick, frames="single_frame"))
    for video, still in zip(whole, single, strict=True):
        assert torch.equal(still, video[:, 4:5].expand_as(video)), "frame 4 of 8, eight times"
        assert not torch.equal(still, video)


def test_shuffled_frames_are_the_same_frames_in_another_order_always_the_same_one(manifest, quick):
    shuffled = replace(quick, frames="shuffled")
    whole, first, again = (
        clips(manifest, quick),
        clips(manifest, shuffled),
        clips(manifest, replace(shuffled, workers=1)),
    )
    for row, video, mixed, repeated in zip(manifest.rows, whole, first, again, strict=False):
        assert torch.equal(mixed, repeated)
        starts = [0, 6]  # 14 frames, two clips of 8
        for v, start in enumerate(starts):
            order = frame_order(shuffled, row, start)
            assert sorted(order) == list(range(8))
            assert torch.equal(mixed[v], video[v][torch.from_numpy(order)])
    orders = {tuple(frame_order(shuffled, row, 0)) for row in manifest.rows}
    assert len(orders) > 20, "each video has an order of its own"


def test_what_needs_no_time_scores_alike_on_single_frames(manifest, quick, tmp_path):
    """A network of single frames on a still scene cannot tell; its features of the frames' colors stay."""
    protocol = replace(quick, stages="all", pool="avg", num_clips=1)
    whole, single = (
        extract_features(Histograms(), manifest, manifest.rows, replace(protocol, frames=frames), cache_dir=tmp_path)
        for frames in ("video", "single_frame")
    )
    assert not single.from_cache, "other frames, another entry of the cache"
    change = slice(64, None)
    still = np.zeros(28)
    still[::7] = 1.0  # nothing changes: all in the lowest bin of each quarter
    np.testing.assert_allclose(single.values_ND[:, change], np.tile(still, (len(manifest), 1)), atol=1e-6)
    assert (whole.values_ND[:, change] != single.values_ND[:, change]).any(axis=1).all()


def test_histograms_are_those_of_plain_loops():
    clip = torch.rand(1, 3, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    colors, changes = np.zeros(64), np.zeros((2, 2, 7))
    levels, gray = (clip[0].numpy() * 4).astype(int), clip[0].numpy().mean(axis=0)
    for t in range(4):
        for y in range(6):
            for x in range(5):
                r, g, b = levels[:, t, y, x]
                colors[16 * r + 4 * g + b] += 1 / 120
                if t:
                    moved = abs(gray[t, y, x] - gray[t - 1, y, x])
                    bin_ = sum(moved > border for border in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32))
                    half = int(x >= 3)  # 5 columns: three and two
                    changes[int(y >= 3), half, bin_] += 1 / (3 * 3 * (2 if half else 3))
    np.testing.assert_allclose(color_histogram(clip)[0].numpy(), colors, atol=1e-6)
    np.testing.assert_allclose(change_histogram(clip)[0].numpy(), changes.ravel(), atol=1e-6)


def test_the_floor_tells_colors_apart_and_never_looks_at_test_labels(manifest, quick, probe):
    def floor(data):
        rows = ask("linear_probe", Histograms(), data, probe, as_histograms(quick), name="histograms")
        return rows + ask("knn", Histograms(), data, probe, as_histograms(quick), name="histograms")

    data = labeled(manifest)
    first = floor(data)
    assert [(row.name, row.metric) for row in first] == [
        ("histograms", "probe_top1"), ("histograms", "knn3_top1"), ("histograms", "recall_at_1")
    ]  # fmt: skip
    assert first[0].value == 1.0
    turned = {"blue": "red", "red": "green", "green": "blue"}
    other = floor(labeled(manifest, test=[replace(row, label=turned[row.label]) for row in data.test]))
    assert other[0].value == 0.0
    assert other[0].context["predictions"] == first[0].context["predictions"]
    assert other[0].context["head"] == first[0].context["head"]


def test_a_dropped_last_batch_is_dropped_and_said(backbone, manifest, quick, probe):
    alone = BaselineProtocol(random=False, histograms=False, single_frame=False, shuffled_frames=False)

    def rows(**changes):
        recipe = ProbeRecipe(features=replace(quick, **changes), probe=probe, baselines=alone)
        return beside(recipe, backbone, labeled(manifest), metrics=("knn",), pretrained=backbone)

    (found, *_) = rows(defects=("drop_last",))
    counts = [found.context["data"][side]["num_videos"] for side in ("train", "test")]
    assert (counts, len(found.ids)) == ([16, 8], 8), "of 18 and 9 videos in batches of 4"
    assert any("with defects of released scripts" in note and "drop_last" in note for note in found.context["notes"])
    (whole, *_) = rows()
    assert len(whole.ids) == 9
    assert not any("defects" in note for note in whole.context["notes"])


def test_jitter_changes_three_clips_in_ten_and_whole_clips_alike(manifest, quick):
    protocol = replace(quick, num_clips=6, num_frames=4)
    plain = [item.clips_VTCHW for item in read_videos(manifest, manifest.rows, protocol)]
    jittered = [
        i.clips_VTCHW for i in read_videos(manifest, manifest.rows, replace(protocol, defects=("color_jitter",)))
    ]
    changed = np.array(
        [[not torch.equal(a, b) for a, b in zip(p, j, strict=True)] for p, j in zip(plain, jittered, strict=True)]
    )
    assert changed.mean() == pytest.approx(0.3, abs=0.1), "162 clips"
    again = [i.clips_VTCHW for i in read_videos(manifest, manifest.rows, replace(protocol, defects=("color_jitter",)))]
    assert all(torch.equal(a, b) for a, b in zip(jittered, again, strict=True)), "ours repeats; the script's does not"
