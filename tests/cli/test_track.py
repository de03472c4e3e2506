"""``ssvid track``: two forms of one verb, what their options mean, and what a mistake says."""

import json

import numpy as np
import pytest
from PIL import Image

from ssvid.cli import build_parser, main
from ssvid.cli.parser import parse
from ssvid.video import write_video
from tests.conftest import moving_square

from .test_cli import told


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("track")
    write_video(folder / "v.mp4", moving_square(12), fps=25)
    for name, number in (("first", 1), ("later", 2)):
        labels = np.zeros((48, 64), np.uint8)
        labels[10 * number : 10 * number + 8, 10:30] = number
        Image.fromarray(labels).save(folder / f"{name}.png")
    return folder


def footage(made, tmp_path, *words):
    network = ["--backbone", "random", "--backbone-name", "tiny3d", "--device", "cpu"]
    return ["track", "--video", str(made / "v.mp4"), *network, "--out", str(tmp_path / "out.mp4"), *words]


def test_masks_and_points_are_of_the_first_frame_unless_another_is_named():
    words = ["--mask", "a=b.png", "--mask", "40=l=r.png", "--points", "1,2.5", "7=3,4", "--points", "0,0"]
    args = parse(build_parser(), ["track", "--video", "v.mp4", *words])
    assert args.mask == [(0, "a=b.png"), (40, "l=r.png")]
    assert args.points == [(0, 1.0, 2.5), (7, 3.0, 4.0), (0, 0.0, 0.0)]
    assert args.recipe is None and args.overrides == []


def test_footage_is_followed_with_settings_of_the_group_track(made, tmp_path, capsys):
    words = ["track.stage=stage2", "track.size_rule=native", "--json"]
    words += ["--mask", str(made / "first.png"), "--mask", f"5={made / 'later.png'}", "--points", "20,30"]
    assert main(footage(made, tmp_path, *words)) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_frames"], result["num_objects"], result["num_points"]) == (12, 2, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out.html", "out.csv", "out_masks"}
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "size_rule: native" in page and "values of one&#39;s own" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "neither RECIPE nor --video is given"),
        (("track/folder", "--video", "v.mp4"), "both RECIPE (track/folder) and --video (v.mp4) are given"),
        (("track/folder", "--mask", "m.png"), "--mask is for your own footage. Add --video FILE"),
        (("track/folder", "--decoder", "pyav"), "--decoder is for your own footage"),
        (("--video", "v.mp4", "--mask", "m.png", "--out", "o.mp4"), "--video needs one --backbone, 0 are given"),
        (("--video", "v.mp4", "--backbone", "a", "--backbone", "b"), "--video needs one --backbone, 2 are given"),
        (("--video", "v.mp4", "--backbone", "a"), "Add --out tracked.mp4"),
        (("--video", "v.mp4", "--backbone", "a", "--placebo", "train"), "--placebo is for recipes"),
        (("--video", "v.mp4", "--points", "one,two"), "'one,two' must be x,y or FRAME=x,y"),
        (("--video", "v.mp4", "--points", "1,2", "track.top_k=5"), "settings stand before --points"),
        (("--video", "v.mp4", "--mask", "4="), "must be a file, or FRAME=FILE"),
        (("--vidio", "v.mp4"), "Did you mean '--video'?"),
    ],
)
def test_what_does_not_go_together_is_one_paragraph(words, said, capsys):
    assert said in told(capsys, "track", *words)


def test_mistakes_in_footage_write_nothing(made, tmp_path, capsys):
    first = str(made / "first.png")
    for words, said in (
        (["--mask", first, "--mask", f"0={first}"], "two masks are given for one frame"),
        (["--mask", first, "optim.epochs=3"], "Write track.key=value"),
        (["--mask", first, "track.topk=3"], "Did you mean 'top_k'"),
        (["--mask", first, "--protocol", "davis2017-crv@1"], "davis2017-crw@1"),
        (["--mask", first, "--protocol", "ucf101-linear@1"], "ssvid probe"),
        (["--mask", first, "--decoder", "vlc"], "vlc"),
        (["--points", "64,2"], "point 64,2 lies outside the video"),
        (["--mask", f"12={first}"], "the video has frames 0 to 11"),
    ):
        assert said in told(capsys, *footage(made, tmp_path, *words))
        assert not list(tmp_path.iterdir())


def test_help_has_an_example_of_both_forms(capsys):
    assert main(["track", "--help"]) == 0
    text = capsys.readouterr().out
    assert "ssvid track track/folder" in text and "ssvid track --video my.mp4 --mask first.png" in text
