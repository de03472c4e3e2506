"""``ssvid layers``: folders that a fit leaves and that are read again, composition and edits from the command line, interruption, mistakes."""

import json
import signal
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import ssvid
from ssvid.cli import main
from ssvid.data.manifest import VideoRow
from ssvid.data.truth import read_truth
from ssvid.errors import DataError, RecipeError
from ssvid.layers.masks.reading import read_mask_folder
from ssvid.programs import layers_fit
from ssvid.programs.layers_folder import LayersFolder
from ssvid.programs.layers_footage import LayerFootage, object_names, open_layer_footage
from ssvid.programs.layers_results import uncovered_frames
from ssvid.programs.layers_scene import write_scene
from ssvid.programs.speed_curves import speed_up
from ssvid.stopping import Stopped
from ssvid.video.synthetic_scenes import draw_known_scene
from tests.browser import find_browser, open_browser
from tests.cli.test_cli import told
from tests.results.test_page import Page

BROWSER = find_browser()
FRAMES, STEPS = 8, 3


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A rendered scene of two walkers: video/, masks/, truth/."""
    return write_scene(tmp_path_factory.mktemp("layers") / "scene", num_frames=FRAMES).folder


def footage(scene, **changed):
    known = {"masks_folder": scene / "masks", "names": ("red", "blue"), "num_frames": FRAMES}
    return LayerFootage(scene / "video", **(known | changed))


def fitted(scene, folder, kind, steps=STEPS):
    settings = ssvid.LayerSettings(kind, steps, short_side_px=32)
    return ssvid.fit_layers(footage(scene), settings=settings, out=folder, show_progress=False)


@pytest.fixture(scope="module")
def made(scene, tmp_path_factory):
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("fits")
    return {kind: fitted(scene, folder / kind, kind) for kind in layers_fit.KINDS}


def film_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def pictures(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


# ---- the folder


@pytest.mark.parametrize("kind", layers_fit.KINDS)
def test_all_is_written_and_read_again(made, scene, kind):
    result = made[kind]
    names = {"layers.json", "masks", "masks.png", "fit.pt", "layers", "background", "background.png"}
    names |= {"films", "preview.mp4", "report.md", "report.json", "index.html"} | (
        {"atlas"} if kind == "atlas" else set()
    )
    assert {path.name for path in result.folder.iterdir()} == names
    folder = LayersFolder.open(result.folder)
    assert folder.kind == kind and folder.names == ("red", "blue")
    assert np.array_equal(folder.frames(), pictures(scene / "video"))
    truth = pictures(scene / "masks")
    assert np.array_equal(folder.clip().masks_NTHW, np.stack([truth == 1, truth == 2]))
    layers = folder.layers()
    assert [layer.name for layer in layers] == ["blue", "red"]  # that in the back first
    assert all(layer.rgba_THW4.shape == (FRAMES, 64, 96, 4) for layer in layers)
    assert folder.background().shape == (FRAMES, 64, 96, 3)
    assert folder.camera().to_canvas_T33.shape == (FRAMES, 3, 3)
    assert {path.name for path in (result.folder / "films").iterdir()} == {
        "video.mp4", "red.mp4", "blue.mp4", "background.mp4", "recomposed.mp4",
    }  # fmt: skip
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["names"] == ["red", "blue"]


def test_where_no_layer_is_the_background_is_the_video():
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3)).astype(np.uint8)
    behind = np.full((2, 8, 12, 3), 77, np.uint8)
    covered = np.zeros((2, 8, 12))
    covered[0, :, 6:] = 1
    found = uncovered_frames(frames, behind, covered)
    assert np.array_equal(found[1], frames[1])
    assert np.array_equal(found[0, :, :11], frames[0, :, :11])
    assert (found[0, :, 13:] == 77).all()


def test_figures_stand_beside_what_takes_no_model(made):
    for kind, anchor in (("omnimatte", "the background alone"), ("atlas", "each frame taken for the next one")):
        report = json.loads((made[kind].folder / "report.json").read_text())
        psnr = next(one for one in report["figures"] if one["name"].startswith("all layers together"))
        assert anchor in psnr["beside"] and psnr["value"] > 5
        text = (made[kind].folder / "report.md").read_text()
        assert all(one["text"] in text for one in report["figures"]) and anchor in text
        assert all(one["warning"] in text for one in report["figures"])
    names = [one.name for one in made["atlas"].findings]
    assert "red: error of its tracks" in names and "blue: IoU of its alpha and its mask" in names
    assert any("way against the background" in one.name for one in made["omnimatte"].findings)


def test_an_atlas_says_where_every_pixel_lies(made):
    folder = made["atlas"].folder / "atlas"
    with np.load(folder / "red.npz") as arrays:
        uv = arrays["uv_px_THW2"]
    assert uv.shape == (FRAMES, 32, 48, 2)
    picture = np.asarray(Image.open(folder / "red.png"))
    mask = np.asarray(Image.open(made["atlas"].folder / "masks" / "00004.png").resize((48, 32), 0)) == 1
    x, y = uv[4][mask].T
    assert picture.shape[2] == 4 and x.min() > -2 and x.max() < picture.shape[1] + 1
    assert picture[..., 3].max() > 200 and y.max() < picture.shape[0] + 1


def test_the_page_is_whole(made, tmp_path):
    text = (made["omnimatte"].folder / "index.html").read_text()
    page = Page(text)
    assert not page.wrong and len(page.all("video")) == 5
    assert all((made["omnimatte"].folder / one["src"]).is_file() for one in page.all("video"))
    assert all((made["omnimatte"].folder / one["href"]).exists() for one in page.all("a"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_plays_all_films_together(made, tmp_path):
    with open_browser(BROWSER, tmp_path / "profile") as browser:
        browser.open(made["omnimatte"].page)
        assert browser.evaluate("document.querySelectorAll('video').length") == 5
        browser.evaluate(
            "document.getElementById('slide').value = 0.2; document.getElementById('slide').dispatchEvent(new Event('input'))"
        )
        times = browser.evaluate("[...document.querySelectorAll('video')].map((film) => film.currentTime)")
        assert times == pytest.approx([0.2] * 5, abs=0.01)
        assert not browser.told("Runtime.exceptionThrown")


# ---- interruption


@pytest.mark.parametrize("kind", layers_fit.KINDS)
def test_a_fit_that_was_stopped_goes_on_bit_for_bit(made, scene, kind, tmp_path, monkeypatch):
    tell = layers_fit._Keeper.__call__

    def stop_after_two(self, model, losses):
        if model.step == 2:
            signal.raise_signal(signal.SIGTERM)
        tell(self, model, losses)

    with monkeypatch.context() as patch:
        patch.setattr(layers_fit._Keeper, "__call__", stop_after_two)
        with pytest.raises(Stopped, match=r"step 2 of 3 is saved. Go on with: ssvid layers fit .*half --resume"):
            fitted(scene, tmp_path / "half", kind)
    with pytest.raises(DataError, match=r"has not ended. Go on with it: ssvid layers fit .*half --resume"):
        ssvid.compose_layers(tmp_path / "half", ssvid.Composition(), tmp_path / "film.mp4")
    result = ssvid.resume_layers(tmp_path / "half", show_progress=False)
    whole, half = (LayersFolder.open(one.folder) for one in (made[kind], result))
    for name in ("background", "layers/red", "layers/blue"):
        assert np.array_equal(pictures(half.path / name), pictures(whole.path / name))
    kept = [torch.load(one.path / "fit.pt", weights_only=True)["network"] for one in (whole, half)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    with pytest.raises(DataError, match="has ended"):
        ssvid.resume_layers(tmp_path / "half", show_progress=False)


def test_an_end_that_was_interrupted_is_made_again(scene, tmp_path, monkeypatch):
    """Some results were moved into the folder, and layers.json does not know of them."""

    def interrupted(self, staged, more):
        (staged / "layers").rename(self.path / "layers")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssvid.layers.omnimatte.inputs.camera_canvas", None)  # the camera was found before the fit
        patch.setattr(LayersFolder, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            fitted(scene, tmp_path / "run", "omnimatte", steps=1)
    result = ssvid.resume_layers(tmp_path / "run", show_progress=False)
    assert len(LayersFolder.open(result.folder).layers()) == 2


def test_ctrl_c_says_how_to_go_on(scene, tmp_path, monkeypatch, capsys):
    def interrupt(self, model, losses):
        raise KeyboardInterrupt

    monkeypatch.setattr(layers_fit._Keeper, "__call__", interrupt)
    words = [
        "layers",
        "fit",
        str(scene / "video"),
        "--masks",
        str(scene / "masks"),
        "--frames",
        "4",
        "--short-side",
        "32",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 130
    assert f"ssvid layers fit {tmp_path / 'run'} --resume" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "masks.png").is_file()


# ---- a scene that is known


def test_a_scene_of_bodies_says_where_its_points_are(tmp_path, capsys):
    assert main(["layers", "scene", str(tmp_path / "scene"), "--kind", "bending", "--frames", "3"]) == 0
    assert "--names body other --frames 3" in capsys.readouterr().out
    known = draw_known_scene("bending", 0, num_frames=3)
    assert np.array_equal(pictures(tmp_path / "scene" / "video"), known.frames_THWC)
    assert np.array_equal(pictures(tmp_path / "scene" / "masks"), known.ids())
    assert pictures(tmp_path / "scene" / "truth" / "other").shape == (3, 72, 128, 4)
    row = VideoRow("video", num_frames=3, fps=12.0, height=72, width=128, truth="truth/points.npz")
    truth = read_truth(tmp_path / "scene", row)
    np.testing.assert_allclose(truth.tracks.points_TQ2, known.points.xy_TP2, atol=1e-4)
    assert np.array_equal(truth.masks.at(2), known.ids()[2])


# ---- composition


def composed(made, tmp_path, *words, kind="omnimatte"):
    out = tmp_path / "film.mp4"
    assert main(["layers", "compose", str(made[kind].folder), *words, "--out", str(out)]) == 0
    return film_of(out).astype(int)


def test_what_is_dropped_is_the_background_behind_the_others(made, tmp_path):
    film = composed(made, tmp_path, "--drop", "red", "--drop", "blue")
    assert np.abs(film - pictures(made["omnimatte"].folder / "background")).mean() < 6  # H.264
    (tmp_path / "film.mp4").unlink()
    kept = composed(made, tmp_path, "--drop", "red")
    mask = pictures(made["omnimatte"].folder / "masks") == 2
    assert np.abs(kept - film)[mask].mean() > 5


def test_time_maps_change_layers_alone(made, tmp_path):
    plain = composed(made, tmp_path)
    (tmp_path / "film.mp4").unlink()
    film = composed(made, tmp_path, "--time", "red=reverse,hold:2", "--time", "blue=all")
    assert len(plain) == FRAMES and len(film) == FRAMES + 2
    masks = pictures(made["omnimatte"].folder / "masks")
    red_then, red_now = masks[0] == 1, masks[FRAMES - 1] == 1
    assert (
        np.abs(film[FRAMES - 1] - plain[0])[red_then].mean()
        < 12
        < np.abs(film[FRAMES - 1] - plain[FRAMES - 1])[red_now].mean()
    )


def test_backgrounds_pictures_clones_and_trails(made, tmp_path):
    Image.new("RGB", (40, 40), (0, 0, 200)).save(tmp_path / "sky.png")
    Image.new("RGBA", (20, 10), (0, 250, 0, 255)).save(tmp_path / "logo.png")
    film = composed(
        made,
        tmp_path,
        "--background",
        str(tmp_path / "sky.png"),
        "--insert",
        f"{tmp_path / 'logo.png'}@70,2",
        "--drop",
        "blue",
    )
    assert film[0, 5, 80] == pytest.approx([0, 250, 0], abs=40)
    assert film[0, 58, 6] == pytest.approx([0, 0, 200], abs=60)
    (tmp_path / "film.mp4").unlink()
    gray = composed(made, tmp_path, "--gray-background", "--drop", "red", "--drop", "blue")
    assert np.ptp(gray, axis=3).mean() < 6
    (tmp_path / "film.mp4").unlink()
    more = composed(made, tmp_path, "--clone", "red=0,40", "--trail", "blue=2,2")
    assert more.shape == gray.shape


def test_a_trained_network_gives_an_object_its_time(made, speediness_run, tmp_path, capsys):
    """All of it, with a network of two steps, which knows nothing: its length is as asked, it is told so, and others go on."""
    words = ["--time", "red=speediness", "--checkpoint", str(speediness_run), "--speed-up", "2"]
    film = composed(made, tmp_path, *words, "--time", "background=all")
    assert len(film) == FRAMES
    said = " ".join(capsys.readouterr().out.split())
    assert "note: red: " in said and f"times in the mean, {FRAMES // 2} pictures" in said
    (tmp_path / "film.mp4").unlink()
    plain = composed(made, tmp_path)
    masks = pictures(made["omnimatte"].folder / "masks")
    blue = (masks == 2) & ~ndimage.binary_dilation(masks == 1, iterations=12)
    assert np.abs(film - plain)[blue].mean() < 6, "blue goes on as it was"
    last = FRAMES - 1
    assert np.abs(film[FRAMES // 2 - 1] - plain[last])[masks[last] == 1].mean() < 12, (
        "red has arrived by half of the time"
    )


def test_mistakes_of_a_time_by_speediness(made, speediness_run, tmp_path, capsys):
    folder, out = str(made["omnimatte"].folder), str(tmp_path / "film.mp4")
    asked = ["--checkpoint", str(speediness_run)]
    for words, answer in (
        (asked, "is asked for nothing: no layer's time is speediness. Say which: --time red=speediness"),
        ([*asked, "--time", "red=speediness", "--speed-up", "0.5"], "nothing is slowed down. Ask for at least 1"),
        ([*asked, "--time", "red=speediness", "--speed-up", "9"], "it must have at least 2"),
        (["--checkpoint", str(tmp_path / "no"), "--time", "red=speediness"], "is not a file. Name a .ckpt"),
        (["--time", "rad=speediness"], "there is no layer 'rad' to be retimed"),
    ):
        assert answer in told(capsys, "layers", "compose", folder, *words, "--out", out), words
    with pytest.raises(
        DataError, match=r"has 7 frames, and the network judges windows of 8\. Take more frames, or a network"
    ):
        speed_up(np.zeros((7, 32, 32, 3), np.uint8), checkpoint=speediness_run, factor=2, show_progress=False)


def test_an_object_gets_its_own_time_by_speediness(made, tmp_path, monkeypatch):
    """Which frames a trained network would keep is tested with it; here that they become the time of the layer."""
    from ssvid.programs import layers_compose

    asked = {}

    def speed_up(frames, **options):
        asked.update(options, shape=frames.shape)
        curve = type("Curve", (), {"notes": ()})()
        told = {"speeds_N": np.ones(3), "factor": 2.5, "curve": curve}
        return type("Sped", (), {"film_frames": np.array([0, 3, FRAMES - 1]), **told})()

    monkeypatch.setattr(layers_compose, "speed_up", speed_up)
    film = composed(
        made,
        tmp_path,
        "--time",
        "red=speediness",
        "--checkpoint",
        "runs/mine",
        "--speed-up",
        "2.5",
        "--time",
        "background=all",
    )
    assert (asked["factor"], asked["checkpoint"], asked["shape"]) == (2.5, "runs/mine", (FRAMES, 64, 96, 3))
    assert len(film) == FRAMES


# ---- edits


def test_paint_on_an_atlas_and_on_a_frame_reaches_the_video(made, scene, tmp_path):
    folder = made["atlas"].folder
    atlas = np.array(Image.open(folder / "atlas" / "background.png"))
    atlas[:, :, :3] = np.where(atlas[:, :, 3:] > 0, (0, 255, 0), atlas[:, :, :3])
    Image.fromarray(atlas).save(tmp_path / "green.png")
    strokes = np.zeros((64, 96, 4), np.uint8)
    strokes[40:60, 5:30] = (255, 0, 255, 255)
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    video = pictures(scene / "video").astype(int)
    outside = pictures(scene / "masks") == 0
    for words, color in (
        (["--atlas", f"background={tmp_path / 'green.png'}"], 1),
        (["--frame", f"background@4={tmp_path / 'strokes.png'}"], 0),
    ):
        out = tmp_path / f"{color}.mp4"
        assert main(["layers", "edit", str(folder), *words, "--out", str(out)]) == 0
        film = film_of(out).astype(int)
        where = outside if color == 1 else np.broadcast_to(strokes[..., 3] > 0, outside.shape) & outside
        assert (film[..., color][where].mean() - video[..., color][where].mean()) > 20
    assert np.abs(film[4] - video[4])[strokes[..., 3] == 0].mean() < 8  # all else is as it was filmed


def test_an_edit_that_is_none_is_told(made, tmp_path):
    folder = made["atlas"].folder
    edits = ssvid.Edits(atlases=[("red", folder / "atlas" / "red.png")])
    result = ssvid.edit_layers(folder, edits, tmp_path / "same.mp4")
    assert result.notes == ("edit 1, of red, changes nothing: the picture is as it was exported",)


# ---- masks


def test_masks_are_seen_before_a_fit_and_taken_by_it(tmp_path, capsys):
    scene, out = write_scene(tmp_path / "slow", num_frames=20).folder, tmp_path / "masks"
    words = [
        "layers",
        "masks",
        str(scene / "video"),
        "--mask",
        f"2={scene / 'masks' / '00002.png'}",
        "--start",
        "1",
        "--frames",
        "3",
    ]
    assert main([*words, "--stride", "1", "--out", str(out)]) == 0
    assert f"sheet: {tmp_path / 'masks.png'}" in capsys.readouterr().out
    masks = read_mask_folder(out, 64, 96)
    assert list(masks) == [1, 2, 3]
    truth = pictures(scene / "masks")
    assert np.array_equal(masks[2], truth[2])
    assert all(((masks[f] == n) & (truth[f] == n)).sum() > 0.7 * (truth[f] == n).sum() for f in (1, 3) for n in (1, 2))


def test_boxes_make_masks(scene, tmp_path):
    truth = pictures(scene / "masks")
    boxes = []
    for number, name in ((1, "red"), (2, "blue")):
        y, x = np.nonzero(truth[0] == number)
        corner = (max(int(x.min()) - 3, 0), max(int(y.min()) - 3, 0))
        boxes.append((name, 0, (*corner, int(np.ptp(x)) + 7, int(np.ptp(y)) + 7)))
    opened = open_layer_footage(footage(scene, masks_folder=None, boxes=boxes, names=(), num_frames=3))
    assert opened.clip.names == ("red", "blue") and opened.given == (0,)
    assert "look at masks.png" in opened.notes[0]
    assert opened.clip.masks_NTHW.any(axis=(2, 3)).all()


def test_frames_that_a_folder_lacks_are_filled_and_named(scene, tmp_path):
    for number in (0, 1, 3):
        (tmp_path / f"{number}.png").write_bytes((scene / "masks" / f"{number:05d}.png").read_bytes())
    opened = open_layer_footage(footage(scene, masks_folder=tmp_path, num_frames=4))
    assert opened.notes == ("the folder has no mask of frame 2: they were carried from their neighbors",)
    assert opened.clip.masks_NTHW[:, 2].any(axis=(1, 2)).all()


def test_names_are_those_that_files_can_have():
    assert object_names((), 1) == ("object",) and object_names((), 2) == ("object1", "object2")
    for names, words in (
        (("a",), "must be 2"),
        (("a", "a"), "there twice"),
        (("a", "../b"), "is none"),
        (("a", "background"), "is none"),
    ):
        with pytest.raises(RecipeError, match=words):
            object_names(names, 2)


# ---- mistakes: one paragraph, exit 2


def test_mistakes_are_told_before_anything_is_written(scene, tmp_path, capsys):
    video, masks, run = str(scene / "video"), str(scene / "masks"), tmp_path / "run"
    small, empty = tmp_path / "small.png", tmp_path / "empty.png"
    Image.new("L", (30, 20), 255).save(small)
    Image.new("L", (96, 64), 0).save(empty)
    still = tmp_path / "still"
    still.mkdir()
    for number in range(FRAMES):
        (still / f"{number}.png").write_bytes((scene / "masks" / "00000.png").read_bytes())
    for words, answer in (
        ([video], "objects must be given in one way, and none is given. Paint the object"),
        ([video, "--masks", masks, "--mask", masks], "--mask and --masks is given"),
        ([video, "--mask", str(tmp_path / "none.png")], "does not exist, or is no file"),
        ([video, "--mask", str(small)], "has 30x20 px (width x height), and the video 96x64"),
        ([video, "--mask", str(empty)], "holds no object: it is empty"),
        ([video, "--box", "0=0,0,96,64"], "is all of the frame"),
        ([video, "--box", "0=5"], "must be FRAME=X,Y,WIDTH,HEIGHT"),
        ([video, "--mask", f"9={masks}/00000.png"], "given in frame 9, and the frames that are taken are 0 to 7"),
        ([video, "--masks", masks, "--frames", "1"], "frames (1) must be at least 2"),
        ([video, "--masks", masks, "--frames", "71"], "frames (71) must be at most 70"),
        ([video, "--masks", masks, "--start", "7"], "has 8 frames, and from frame 7 on"),
        ([video, "--masks", masks, "--names", "one"], "names (one) must be 2"),
        ([video, "--masks", str(still), "--frames", "8"], "what lies behind object1 is hardly seen in any frame"),
        ([str(tmp_path / "no.mp4"), "--masks", masks], "does not exist. Name a video"),
        ([video, "--masks", masks, "--kind", "atlass"], "unknown value 'atlass'"),
        ([str(tmp_path), "--resume"], "is no folder of ssvid layers fit"),
        ([video, "--masks", masks, "--resume"], "--resume goes on with a fit as it was begun"),
    ):
        assert answer in told(capsys, "layers", "fit", *words, "--out", str(run)) if "--resume" not in words else True
        if "--resume" in words:
            assert answer in told(capsys, "layers", "fit", *words)
        assert not run.exists()


def test_mistakes_of_composition_and_edits(made, tmp_path, capsys):
    omnimatte, atlas = (str(made[kind].folder) for kind in layers_fit.KINDS)
    out = tmp_path / "film.mp4"
    for words, answer in (
        (["compose", omnimatte, "--drop", "rde"], "there is no layer 'rde'. Did you mean 'red'?"),
        (["compose", omnimatte, "--time", "rad=all"], "there is no layer 'rad' to be retimed. Did you mean 'red'?"),
        (["compose", omnimatte, "--time", "red=0..99"], "names frame 99; there are 8"),
        (["compose", omnimatte, "--time", "red=all", "--time", "red=all"], "two times are given for one layer"),
        (["compose", omnimatte, "--time", "red=speediness"], "--checkpoint runs/mine"),
        (["compose", omnimatte, "--background", str(tmp_path / "no.png")], "does not exist. Name a PNG"),
        (["compose", omnimatte, "--clone", "red=5"], "must be NAME=DX,DY"),
        (["compose", omnimatte, "--trail", "red=0,2"], "whole numbers of at least 1"),
        (["compose", str(tmp_path)], "is no folder of ssvid layers fit"),
        (["edit", omnimatte, "--style", "red=poster"], "is of kind omnimatte and has no atlases"),
        (["edit", atlas], "no edit is given"),
        (["edit", atlas, "--style", "red=cubism"], "there is no style 'cubism'"),
        (["edit", atlas, "--frame", f"red@99={atlas}/background.png"], "names frame 99 of the video"),
        (["edit", atlas, "--atlas", f"red={atlas}/masks.png"], "keep its size"),
    ):
        assert answer in told(capsys, "layers", *words, "--out", str(out)), words
        assert not out.exists()
    assert "must end in .mp4" in told(capsys, "layers", "compose", omnimatte, "--out", str(tmp_path / "film.gif"))
    out.write_bytes(b"mine")
    assert "exists, and nothing is overwritten" in told(capsys, "layers", "compose", omnimatte, "--out", str(out))


def test_a_video_that_was_exchanged_is_told(made, scene, tmp_path):
    folder = LayersFolder.open(made["atlas"].folder)
    known = dict(folder.facts["video"], content_id="another")
    with pytest.raises(DataError, match="is another video than the one"):
        LayersFolder(folder.path, dict(folder.facts, video=known)).frames()


def test_the_command_line_is_quick_to_say_no():
    """Help and mistakes of the words themselves load no torch."""
    import subprocess

    code = "import sys; from ssvid.cli import main; main(['layers', 'fit', 'x', '--box', 'y']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
