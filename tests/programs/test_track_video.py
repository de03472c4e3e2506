"""One's own footage: everything that is written, masks that come later, films that play; and mistakes that write nothing."""

import csv
import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from ssvid.backbones import initialize_backbone
from ssvid.errors import DataError, DecodeError, RecipeError, SsvidError
from ssvid.evals.label_propagation.regions import jaccard
from ssvid.features.propagation_protocol import PropagationProtocol
from ssvid.pictures import voc_colors
from ssvid.programs import footage as footage_module
from ssvid.programs.footage import Footage, open_footage
from ssvid.programs.track_video import track_video
from ssvid.video import open_video, write_video
from tests.results.test_page import Page

SIZE = (48, 64)
NUM_FRAMES = 20
SMALL = PropagationProtocol(size_rule="native", stride_px=4, stage="stage2", num_previous=3)


def squares(count=NUM_FRAMES, height=48, width=64):
    """A yellow square that goes right, and from frame 8 on a blue one that goes down; and what is true of each frame."""
    rng = np.random.default_rng(3)
    ground = rng.integers(40, 110, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for t in range(count):
        frame, labels = ground[:height, :width].copy(), np.zeros((height, width), np.uint8)
        frame[8:24, 4 + t : 20 + t], labels[8:24, 4 + t : 20 + t] = (250, 240, 90), 1
        if t >= 8:
            frame[18 + t : 30 + t, 40:54], labels[18 + t : 30 + t, 40:54] = (30, 60, 250), 2
        yield frame, labels


def save_mask(path, labels):
    picture = Image.fromarray(labels)
    picture.putpalette(voc_colors().tobytes())
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A video, the masks of its frames 0 and 8, and a folder of all of them."""
    folder = tmp_path_factory.mktemp("footage")
    frames, masks = zip(*squares(), strict=True)
    write_video(folder / "squares.mp4", frames, 12.5, crf=10)
    (folder / "truth").mkdir()
    for t, labels in enumerate(masks):
        save_mask(folder / "truth" / f"{t:05d}.png", labels)
    save_mask(folder / "first.png", masks[0])
    save_mask(folder / "later.png", np.where(masks[8] == 2, masks[8], 0).astype(np.uint8))
    return folder


def follow(footage, out, **options):
    defaults = {"backbone": "random", "backbone_name": "tiny3d", "protocol": SMALL, "device": "cpu"}
    return track_video(footage, out=out, show_progress=False, **defaults | options)


@pytest.fixture(scope="module")
def tracked(made, tmp_path_factory):
    """All of it at once: two objects, the second of which comes later, two points, and the truth."""
    out = tmp_path_factory.mktemp("tracked") / "new" / "tracked.mp4"
    masks = {0: made / "first.png", 8: made / "later.png"}
    points = [(0, 12.0, 16.0), (8, 47.0, 32.0)]
    return follow(Footage(made / "squares.mp4", masks, points, truth=made / "truth"), out)


def test_all_is_written_and_nothing_else(tracked):
    outputs = tracked.outputs
    names = {"tracked.mp4", "tracked.html", "tracked.csv", "tracked_masks", "tracked_beside_truth.mp4"}
    assert {path.name for path in outputs.film.parent.iterdir()} == names
    assert {path.name for path in outputs.paths.values()} == names
    assert (tracked.num_frames, tracked.num_objects, tracked.num_points) == (NUM_FRAMES, 2, 2)


def test_masks_are_as_the_davis_evaluator_wants_them(tracked, made):
    files = sorted(tracked.outputs.masks.iterdir())
    assert [file.name for file in files] == [f"{t:05d}.png" for t in range(NUM_FRAMES)]
    found = []
    for file in files:
        with Image.open(file) as picture:
            assert (picture.mode, picture.size) == ("P", SIZE[::-1])
            assert bytes(picture.getpalette()) == voc_colors().tobytes()
            found.append(np.array(picture))
    true = [labels for _, labels in squares()]
    np.testing.assert_array_equal(found[0], true[0])
    np.testing.assert_array_equal(found[8] == 2, true[8] == 2)
    assert not any((labels == 2).any() for labels in found[:8])
    assert set(np.unique(found[-1]).tolist()) <= {0, 1, 2}


def test_j_is_that_of_the_files_without_what_was_given(tracked):
    true = [labels for _, labels in squares()]
    for number, start in ((1, 0), (2, 8)):
        values = []
        for t in range(start + 1, NUM_FRAMES):
            with Image.open(tracked.outputs.masks / f"{t:05d}.png") as picture:
                values.append(jaccard(true[t] == number, np.array(picture) == number))
        assert tracked.jaccard[number] == pytest.approx(np.mean(values), abs=1e-12)


def test_the_film_has_every_frame_with_its_objects_drawn(tracked, made):
    with open_video(tracked.outputs.film) as film, open_video(made / "squares.mp4") as video:
        same = ("num_frames", "height", "width", "fps")
        assert [getattr(film.info, name) for name in same] == [getattr(video.info, name) for name in same]
        drawn, plain = (reader.frames_at(np.array([0])).numpy()[0].astype(int) for reader in (film, video))
    changed = np.abs(drawn - plain)
    assert changed[:, next(squares())[1] == 1].mean() > 25 and changed[:, 40:].mean() < 8
    with open_video(tracked.outputs.beside_truth) as beside:
        assert (beside.info.num_frames, beside.info.width) == (NUM_FRAMES, 2 * 300 + 4)


def test_tracks_have_a_line_for_each_frame_and_point(tracked):
    with open(tracked.outputs.tracks, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * NUM_FRAMES
    assert [lines[0][name] for name in ("frame", "seconds", "point", "x_px", "y_px", "visible")] == [
        *("0", "0.000000", "1", "12.000", "16.000", "1")
    ]
    second = [line for line in lines if line["point"] == "2"]
    assert [line["x_px"] for line in second[:8]] == [""] * 8 and {line["visible"] for line in second[:8]} == {"0"}
    assert (second[8]["x_px"], second[8]["y_px"], second[8]["visible"]) == ("47.000", "32.000", "1")
    assert float(lines[-1]["seconds"]) == pytest.approx((NUM_FRAMES - 1) / 12.5, abs=1e-6)


def test_the_page_shows_films_objects_points_and_curves(tracked):
    parsed = Page(tracked.outputs.page.read_text(encoding="utf-8"))
    text = " ".join(parsed.texts)
    assert parsed.open == parsed.wrong == []
    assert len(parsed.all("video")) == 2 and len(parsed.all("svg")) == 1 and len(parsed.all("img")) == 1
    for words in ("squares.mp4, tracked", "2 objects and 2 points", "object 2", "point 2", "the network is random"):
        assert words in text
    assert "size_rule: native" in text and "tiny3d, stage stage2" in text
    links = {attributes["href"] for attributes in parsed.all("a")}
    assert links == {"./tracked.mp4", "./tracked_masks", "./tracked.csv", "./tracked_beside_truth.mp4"}


def test_the_result_is_json_and_words(tracked):
    plain = json.loads(json.dumps(tracked.as_dict(), allow_nan=False))
    assert set(plain["outputs"]) == {"film", "page", "masks", "tracks", "beside_truth"}
    assert plain["jaccard"].keys() == {"1", "2"} and plain["notes"] == ["the network is random: it was not trained"]
    assert str(tracked).startswith("2 objects and 2 points followed through 20 frames")


def test_points_alone_and_masks_alone(made, tmp_path):
    points = follow(Footage(made / "squares.mp4", points=[(0, 12.0, 16.0)]), tmp_path / "a.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.csv", "a.html"}
    assert points.jaccard == {} and str(points).startswith("1 point followed")
    masks = follow(Footage(made / "squares.mp4", {0: made / "first.png"}), tmp_path / "b.mp4")
    assert {path.name for path in tmp_path.glob("b*")} == {"b.mp4", "b_masks", "b.html"}
    assert masks.num_objects == 1


def test_odd_sides_and_two_frames(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 33, 47, "bgr0"
        for t in range(2):
            pixels = np.random.default_rng(t).integers(0, 255, (33, 47, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    labels = np.zeros((33, 47), np.uint8)
    labels[5:20, 5:20] = 1
    save_mask(tmp_path / "m.png", labels)
    result = follow(Footage(tmp_path / "two.mkv", {1: tmp_path / "m.png"}), tmp_path / "o.mp4")
    assert result.num_frames == 2 and "H.264 needs even sides" in result.notes[0]
    with open_video(result.outputs.film) as film:
        assert (film.info.height, film.info.width) == (34, 48)
    with Image.open(result.outputs.masks / "00000.png") as picture:
        assert picture.size == (47, 33)
        assert not np.array(picture).any(), "before the first mask all is background"


# ---- mistakes


def refused(made, tmp_path, kind, words, footage=None, **options):
    """The command raises one clear paragraph and leaves nothing behind."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    footage = footage or Footage(made / "squares.mp4", {0: made / "first.png"})
    with pytest.raises(kind) as caught:
        follow(footage, options.pop("out", tmp_path / "out.mp4"), **options)
    text = str(caught.value)
    assert words in text and "\n" not in text.strip() and text.rstrip().endswith((".", "first"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    return text


def masked(made, path, frame=0, **more):
    return Footage(made / "squares.mp4", {frame: path}, **more)


def test_a_mask_of_another_size(made, tmp_path):
    save_mask(tmp_path / "m.png", np.ones((24, 32), np.uint8))
    refused(
        made,
        tmp_path,
        DataError,
        "has 32x24 pixels (width x height), and the video 64x48",
        masked(made, tmp_path / "m.png"),
    )


def test_a_mask_without_an_object(made, tmp_path):
    save_mask(tmp_path / "m.png", np.zeros(SIZE, np.uint8))
    refused(made, tmp_path, DataError, "holds no object", masked(made, tmp_path / "m.png"))
    both = {0: made / "first.png", 5: tmp_path / "m.png"}
    refused(made, tmp_path, DataError, "holds no object", Footage(made / "squares.mp4", both))


def test_an_unsupported_palette(made, tmp_path):
    Image.fromarray(np.full((*SIZE, 3), (1, 2, 3), np.uint8)).save(tmp_path / "m.png")
    refused(made, tmp_path, DataError, "holds the color (1, 2, 3)", masked(made, tmp_path / "m.png"))
    Image.fromarray(np.full(SIZE, 40_000, np.uint16)).save(tmp_path / "deep.png")
    refused(made, tmp_path, DataError, "has 16 bits a pixel", masked(made, tmp_path / "deep.png"))


def test_ids_with_a_gap(made, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[:9], labels[20:30] = 1, 3
    save_mask(tmp_path / "m.png", labels)
    refused(made, tmp_path, DataError, "numbered 1 to K without a gap", masked(made, tmp_path / "m.png"))


def test_a_mask_that_is_no_picture_or_not_there(made, tmp_path):
    (tmp_path / "m.png").write_text("no picture")
    refused(made, tmp_path, DataError, "cannot be read as a mask", masked(made, tmp_path / "m.png"))
    refused(made, tmp_path, DataError, "does not exist", masked(made, tmp_path / "away.png"))


def test_a_frame_that_is_not_there(made, tmp_path):
    refused(made, tmp_path, DataError, "the video has frames 0 to 19", masked(made, made / "first.png", frame=20))
    away = Footage(made / "squares.mp4", points=[(20, 5.0, 5.0)])
    refused(made, tmp_path, DataError, "is given in frame 20, and the video has frames 0 to 19", away)


@pytest.mark.parametrize("place", [(64.0, 5.0), (5.0, 48.0), (-1.0, 5.0), (np.nan, 5.0)], ids=["x", "y", "left", "nan"])
def test_a_point_outside(made, tmp_path, place):
    refused(made, tmp_path, DataError, "x must be from 0 to 63", Footage(made / "squares.mp4", points=[(0, *place)]))


def test_nothing_to_follow(made, tmp_path):
    refused(made, tmp_path, DataError, "neither a mask nor a point", Footage(made / "squares.mp4"))


def test_one_frame(made, tmp_path):
    write_video(tmp_path / "one.mp4", [np.zeros((*SIZE, 3), np.uint8)], 25)
    refused(made, tmp_path, DataError, "must have at least 2", Footage(tmp_path / "one.mp4", {0: made / "first.png"}))


def test_a_video_that_cannot_be_read_or_is_not_there(made, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    reasons = {
        "bad.mp4": "not a video that FFmpeg can open",
        "empty.mp4": "the file is empty",
        "folder": "it holds none",
    }
    for name, reason in reasons.items():
        words = f"--video ({tmp_path / name}) must be a video"
        told = refused(made, tmp_path, DataError, words, Footage(tmp_path / name, {0: made / "first.png"}))
        assert reason in told and "files failed" not in told and told.endswith("or name another one.")
    refused(made, tmp_path, DataError, "does not exist", Footage(tmp_path / "away.mp4", {0: made / "first.png"}))


@pytest.mark.parametrize("name", ["out.mp4", "out.html", "out_masks", "out.csv"])
def test_nothing_is_overwritten(made, tmp_path, name):
    (tmp_path / name).write_text("mine")
    both = Footage(made / "squares.mp4", {0: made / "first.png"}, [(0, 5.0, 5.0)])
    refused(made, tmp_path, DataError, f"{name} exists, and nothing is overwritten", both)
    assert (tmp_path / name).read_text() == "mine"


def test_a_film_is_mp4(made, tmp_path):
    refused(made, tmp_path, RecipeError, "must end in .mp4", out=tmp_path / "out.avi")


def test_weights_and_settings_that_are_wrong(made, tmp_path):
    refused(made, tmp_path, SsvidError, "away", backbone=tmp_path / "away", backbone_name=None)
    refused(made, tmp_path, RecipeError, "stage9", protocol=PropagationProtocol(stage="stage9"))
    refused(made, tmp_path, SsvidError, "must be one stage", protocol=replace(SMALL, stage="stage1,stage2"))


def test_a_stage_that_was_never_trained(made, tmp_path, monkeypatch):
    def trained_to_stage2(*_args, **_options):
        network = initialize_backbone("tiny3d").eval()
        network.provenance = {"stage": "stage2"}
        return network

    monkeypatch.setattr("ssvid.programs.track_video.load_backbone", trained_to_stage2)
    refused(made, tmp_path, RecipeError, "untrained_stage", protocol=replace(SMALL, stage="stage3"))
    footage = Footage(made / "squares.mp4", points=[(0, 5.0, 5.0)])
    follow(footage, tmp_path / "a.mp4", protocol=replace(SMALL, stage="stage3", untrained_stage=True))
    follow(footage, tmp_path / "b.mp4", protocol=replace(SMALL, stage=""))
    assert "tiny3d, stage stage2" in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_truth_that_does_not_fit(made, tmp_path):
    refused(made, tmp_path, DataError, "does not exist", masked(made, made / "first.png", truth=tmp_path / "away"))
    (tmp_path / "empty").mkdir()
    refused(made, tmp_path, DataError, "holds none", masked(made, made / "first.png", truth=tmp_path / "empty"))
    points = Footage(made / "squares.mp4", points=[(0, 5.0, 5.0)], truth=made / "truth")
    refused(made, tmp_path, DataError, "no mask is given", points)


def test_what_breaks_in_the_middle_leaves_nothing(made, tmp_path, monkeypatch):
    """A frame in the middle turns out to be unreadable when half of the film is written."""
    whole = footage_module.OpenedFootage.frames

    def broken(self):
        for frame, picture in enumerate(whole(self)):
            if frame == 12:
                raise DecodeError("squares.mp4", "frame 12 of 20")
            yield picture

    monkeypatch.setattr(footage_module.OpenedFootage, "frames", broken)
    refused(made, tmp_path, DecodeError, "frame 12 of 20")


def test_what_appears_meanwhile_is_not_overwritten(made, tmp_path, monkeypatch):
    from ssvid.programs import track_video as program

    def quicker(page):
        (tmp_path / "out.html").write_text("theirs")
        return "ours"

    monkeypatch.setattr(program, "render_track_page", quicker)
    with pytest.raises(DataError, match=r"out\.html exists"):
        follow(Footage(made / "squares.mp4", {0: made / "first.png"}), tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_frames_come_one_by_one_and_once_each(made):
    opened = open_footage(Footage(made / "squares.mp4", points=[(0, 1.0, 1.0)]))
    frames = list(opened.frames())
    with open_video(made / "squares.mp4") as reader:
        expected = reader.frames_at(np.arange(NUM_FRAMES)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(np.stack(frames), expected)


def test_a_home_folder_and_a_name_with_a_space(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(made / "squares.mp4", tmp_path / "my squares.mp4")
    shutil.copy(made / "first.png", tmp_path / "first.png")
    result = follow(Footage("~/my squares.mp4", {0: "~/first.png"}), "~/o u t.mp4")
    assert result.outputs.film == tmp_path / "o u t.mp4" and result.outputs.film.is_file()
