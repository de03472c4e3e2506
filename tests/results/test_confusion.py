"""Class by class: what is right is counted, and shares of right views are added as shares."""

import numpy as np

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.results.confusion import per_class
from ssvid.results.rows import ResultRow


def test_shares_of_right_views_are_added_as_shares():
    """Four videos of one class with .9, .8, .85 and .75 of their views right are 3.3 of 4, and not none."""
    videos = [
        VideoRow(path=f"{i}.mp4", num_frames=9, fps=25.0, height=8, width=8, label="a" if i < 4 else "b")
        for i in range(6)
    ]
    ids = tuple(video.path for video in videos)
    shares, right = np.array([0.9, 0.8, 0.85, 0.75, 1.0, 0.0]), np.array([1, 1, 0, 1, 1, 0], bool)
    rows = [
        ResultRow.counted("pretrained", metric, values, 0.5, ids, ids, {})
        for metric, values in (("finetune_clip_top1", shares), ("finetune_top1", right))
    ]
    found = per_class(rows, Manifest("/videos", tuple(videos)))["pretrained"]
    np.testing.assert_allclose(found["finetune_clip_top1"]["a"], [3.3, 4])
    assert found["finetune_clip_top1"]["b"] == [1.0, 2]
    assert found["finetune_top1"] == {"a": [3, 4], "b": [1, 2]}
    for metric, row in (("finetune_clip_top1", rows[0]), ("finetune_top1", rows[1])):
        assert sum(right for right, _ in found[metric].values()) / 6 == row.value
