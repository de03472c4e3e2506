"""``ssvid demo speed``, with few videos: everything that it leaves, and that its numbers are those of the files."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

import ssvid
from ssvid.errors import SsvidError
from ssvid.programs import demo_speed
from ssvid.video.schedules import scheduled_video


def test_it_leaves_a_page_and_a_curve_beside_the_truth(tmp_path, monkeypatch):
    for name, value in (("NUM_TRAIN", 20), ("SECONDS", 1.6), ("WATCHED_SECONDS", 3.0), ("WATCHED_PX", 32)):
        monkeypatch.setattr(demo_speed, name, value)
    result = ssvid.demo(tmp_path / "demo", what="speed", show_progress=False)
    names = {"videos", "pretrained", "watched.mp4", "speed", "truth.svg", "results.json"}
    assert {path.name for path in result.folder.iterdir()} == names
    truth = scheduled_video(demo_speed.MOTION, 0, seconds=3.0, size_px=32)
    assert result.rank == pytest.approx(spearmanr(result.shown.curve.probs_T, truth.speeds_T).statistic)
    error = np.abs(np.log2(result.shown.sped.natural_N) + np.log2(np.minimum(truth.speeds_T, 1))).mean()
    assert result.log2_error == pytest.approx(error)
    assert json.loads((result.folder / "results.json").read_text()) == result.as_dict()
    drawing = (result.folder / "truth.svg").read_text()
    assert drawing.count("<polyline") == 4 and drawing.count("<image") == 10 and ">truth<" in drawing
    assert result.shown.page.is_file() and "rank correlation" in str(result)


def test_another_word_is_told(tmp_path):
    with pytest.raises(SsvidError, match=r"what \('sped'\) is no demo. Did you mean 'speed'"):
        ssvid.demo(tmp_path, what="sped")
