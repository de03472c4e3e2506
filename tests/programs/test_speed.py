"""``ssvid speed``: all that is written, films of exactly the mapped frames, a page that a real browser plays; mistakes."""

import csv
import json
from fractions import Fraction

import av
import numpy as np
import pytest

import ssvid
from ssvid.apps.asking import Asker
from ssvid.apps.speedup import SpeedUpConfig
from ssvid.backbones import initialize_backbone
from ssvid.cli import main
from ssvid.errors import CheckpointError, DataError, RecipeError
from ssvid.programs.speed_curves import CurveConfig, asked_task, require_speed
from ssvid.programs.speed_page import draw_curve
from ssvid.tasks import ClipQuestion, PretextTask
from ssvid.video import write_video
from ssvid.video.synthetic import draw_scene, render
from ssvid.video.synthetic_motions import MOTIONS
from tests.browser import find_browser, open_browser
from tests.cli.test_cli import told
from tests.results.test_page import Page
from tests.video.test_sound import write_with_tones

NUM_FRAMES, HEIGHT, WIDTH, FPS = 90, 32, 64, 20
BROWSER = find_browser()
QUIET = {"device": "cpu", "show_progress": False}


def numbered(number):
    """A frame that carries its number: 7 bits, black and white blocks of 8 by 16 pixels."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(7):
        frame[8:24, 8 * bit : 8 * bit + 8] = 235 if number >> bit & 1 else 16
    return frame


def number_of(frame):
    return sum(int(frame[16, 8 * bit + 4].mean() > 128) << bit for bit in range(7))


def numbers_in(path):
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def run(speediness_run):
    return speediness_run


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("numbered") / "numbered video.mp4"
    write_video(path, [numbered(n) for n in range(NUM_FRAMES)], FPS, crf=10)
    return path


@pytest.fixture(scope="module")
def made(run, video, tmp_path_factory):
    out = tmp_path_factory.mktemp("speed") / "new" / "folder"
    return ssvid.speed(video, checkpoint=run, speed_up=2, with_map=True, out=out, **QUIET)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_all_is_written_and_nothing_else(made):
    names = {"index.html", "film.mp4", "curve.csv", "curve.svg", "map.mp4", "map.png", "adaptive.mp4", "uniform.mp4"}
    assert {path.name for path in made.folder.iterdir()} == names | {"frames.csv", "speed.json"}
    assert json.loads(json.dumps(made.as_dict(), allow_nan=False))["speed_up"]["num_frames"] == 45
    assert "page:" in str(made) and "2.02 times shorter" in str(made)


def test_both_films_have_exactly_the_mapped_frames(made):
    rows = rows_of(made.folder / "frames.csv")
    for name, film_frames in (("adaptive", made.sped.film_frames), ("uniform", made.sped.uniform_frames)):
        assert [int(row[f"{name}_frame"]) for row in rows] == film_frames.tolist()
        assert numbers_in(made.folder / f"{name}.mp4") == film_frames.tolist()
        assert (
            len(film_frames) == 45
            and film_frames[0] == 0
            and film_frames[-1] == 89
            and (np.diff(film_frames) > 0).all()
        )
        assert [float(row[f"{name}_seconds"]) for row in rows] == pytest.approx(film_frames / FPS, abs=1e-4)


def test_the_table_has_a_line_for_every_frame(made):
    rows = rows_of(made.folder / "curve.csv")
    assert [int(row["frame"]) for row in rows] == list(range(NUM_FRAMES))
    assert [float(row["seconds"]) for row in rows] == pytest.approx(np.arange(NUM_FRAMES) / FPS, abs=1e-4)
    assert [float(row["probability"]) for row in rows] == pytest.approx(made.curve.probs_T, rel=1e-4)
    assert [float(row["film_speed"]) for row in rows] == pytest.approx(made.sped.speeds_N, rel=1e-4)
    assert min(float(row["natural_factor"]) for row in rows) >= 1


def test_the_film_of_the_page_has_every_frame(made):
    for name in ("film.mp4", "map.mp4"):
        with av.open(str(made.folder / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES


def test_the_functions_say_the_same_as_the_verb(made, run, video):
    curve = ssvid.speed_curve(video, checkpoint=run, **QUIET)
    assert (
        np.array_equal(curve.probs_T, made.curve.probs_T)
        and curve.says == "sped up"
        and (curve.window, curve.hop) == (8, 2)
    )
    sped = ssvid.speed_up(video, checkpoint=run, seconds=2.25, **QUIET)
    assert np.array_equal(sped.film_frames, made.sped.film_frames)
    assert sped.seconds == 2.25 and sped.factor == pytest.approx(89 / 44)


def test_an_array_is_a_video_too(run):
    frames_THWC = np.stack([numbered(n) for n in range(30)])
    curve = ssvid.speed_curve(
        frames_THWC, checkpoint=run, array_fps=10, settings=CurveConfig(hop=1, overlap="mean"), **QUIET
    )
    assert (
        curve.probs_T.shape == (30,)
        and curve.seconds_T[-1] == 2.9
        and 0 < curve.probs_T.min() <= curve.probs_T.max() < 1
    )
    still = np.broadcast_to(frames_THWC[5], frames_THWC.shape).copy()
    constant = ssvid.speed_curve(still, checkpoint=run, **QUIET).probs_T
    assert constant == pytest.approx(np.full(30, constant[0]), abs=1e-6)


def test_a_factor_of_one_is_the_video_itself(run, video):
    sped = ssvid.speed_up(video, checkpoint=run, factor=1, speed=SpeedUpConfig(rule="max"), **QUIET)
    assert sped.film_frames.tolist() == sped.uniform_frames.tolist() == list(range(NUM_FRAMES))


def test_frames_of_unequal_durations_are_judged_and_shown_at_their_time(run, tmp_path):
    """Frames 20 to 39 stay three times as long: 40 + 60 beats, and the network sees a video that stands still for two of three."""
    path = tmp_path / "variable.mp4"
    durations = np.where((np.arange(60) >= 20) & (np.arange(60) < 40), 3, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = WIDTH, HEIGHT, "yuv420p", Fraction(1, FPS)
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, pts in enumerate(np.cumsum(durations) - durations):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = int(pts), Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = ssvid.speed(path, checkpoint=run, fps=FPS, out=tmp_path / "out", **QUIET)
    assert result.curve.seconds_T == pytest.approx((np.cumsum(durations) - durations) / FPS, abs=1e-6)
    spread = np.stack([numbered(n) for n in np.repeat(np.arange(60), durations)])
    same = ssvid.speed_curve(spread, checkpoint=run, array_fps=FPS, **QUIET)
    places = np.cumsum(durations) - durations
    assert result.curve.probs_T == pytest.approx(same.probs_T[places], abs=0.02), (
        "the last frame's own time differs by encoding"
    )
    assert any("unequal durations" in note for note in result.curve.notes)


def test_the_adaptive_film_has_sound_where_that_is_asked_for(run, tmp_path):
    video = write_with_tones(tmp_path, [numbered(n % 100) for n in range(200)])
    result = ssvid.speed(video, checkpoint=run, speed_up=2, sound=True, out=tmp_path / "out", **QUIET)
    with av.open(str(result.folder / "adaptive.mp4")) as container:
        sound, film = container.streams.audio[0], container.streams.video[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(float(film.duration * film.time_base), abs=0.05)
    with av.open(str(result.folder / "uniform.mp4")) as container:
        assert not container.streams.audio
    assert numbers_in(result.folder / "adaptive.mp4") == (result.sped.film_frames % 100).tolist()
    with pytest.raises(DataError, match="has no sound track, and --sound asks for its sound"):
        ssvid.speed(video.with_name("silent.mp4"), checkpoint=run, speed_up=2, sound=True, out=tmp_path / "no", **QUIET)
    assert not (tmp_path / "no").exists()


# ---- the page


def test_the_page_is_whole_and_what_looks_like_markup_stays_text(made, run, tmp_path):
    parsed = Page((made.folder / "index.html").read_text(encoding="utf-8"))
    assert parsed.open == parsed.wrong == []
    assert [video["id"] for video in parsed.all("video")] == ["film", "adaptive", "uniform"]
    assert len(parsed.all("svg")) == 1 and all(image["alt"] for image in parsed.all("img"))
    evil = tmp_path / "<b>a & b<script>.mp4"
    write_video(evil, [numbered(n) for n in range(20)], FPS)
    result = ssvid.speed(evil, checkpoint=run, out=tmp_path / "out", **QUIET)
    parsed = Page(result.page.read_text(encoding="utf-8"))
    assert (
        not parsed.all("b")
        and len(parsed.all("script")) == 2
        and any("<b>a & b<script>" in text for text in parsed.texts)
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_a_real_browser_plays_it_by_mouse_keyboard_and_on_a_telephone(made, tmp_path):
    with open_browser(BROWSER, tmp_path / "profile") as browser:
        browser.open(made.page)
        if browser.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64000a\"')") == "":
            pytest.skip("this Chromium was built without H.264")
        ready = "Promise.all([film, adaptive, uniform].map(v => new Promise(r => v.readyState > 0 ? r() : v.onloadedmetadata = r)))"
        browser.evaluate(ready)
        assert browser.evaluate("[film.duration, adaptive.duration, uniform.duration]") == pytest.approx(
            [4.5, 2.25, 2.25]
        )
        cursor = "Number(document.querySelector('.cursor').getAttribute('x1'))"
        key = "seek.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', cancelable: true}))"
        start = browser.evaluate(cursor)
        moved = browser.evaluate(f"new Promise(r => {{ film.onseeked = () => r({cursor}); {key % 'ArrowRight'}; }})")
        assert browser.evaluate("film.currentTime") == pytest.approx(1.0)
        assert moved - start == pytest.approx((950 - 48) / 4.5, abs=1)
        shown = float(browser.evaluate("now.textContent").split()[-2]) / 100
        assert shown == pytest.approx(made.curve.probs_T[20], abs=0.02)
        browser.evaluate("curve.scrollIntoView({block: 'center'})")
        box = browser.evaluate("(b => [b.left, b.top, b.width])(curve.getBoundingClientRect())")
        x = box[0] + box[2] * (48 + (950 - 48) * 0.5) / 960
        for kind in ("mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=box[1] + 60, button="left", clickCount=1)
        assert browser.evaluate("film.currentTime") == pytest.approx(2.25, abs=0.1)
        browser.evaluate("new Promise(r => film.seeking ? film.onseeked = r : r())")
        switched = "new Promise(r => { film.onseeked = () => r([film.src.split('/').pop(), film.currentTime, key.hidden]); map.click(); })"
        name, at, hidden = browser.evaluate(switched)
        assert name == "map.mp4" and at == pytest.approx(2.25, abs=0.1) and hidden is False
        both = "new Promise(r => { let n = 0; for (const v of [adaptive, uniform]) v.onended = () => { if (++n == 2) r(true); }; play.click(); })"
        assert browser.evaluate(both) and browser.evaluate("play.textContent") == "Play both"
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.evaluate("play.getBoundingClientRect().height") >= 44
        requested = {event["request"]["url"] for event in browser.told("Network.requestWillBeSent")}
        beside = {url.rpartition("/")[2] for url in requested if not url.startswith("data:")}
        assert beside == {"index.html", "film.mp4", "map.mp4", "adaptive.mp4", "uniform.mp4"}
        assert browser.told("Log.entryAdded") == [] and browser.told("Runtime.exceptionThrown") == []


# ---- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--speed-up", "0.5"], "a speed-up of 0.5 has 180 frames, more than the video, which has 90 (4.5 s)"),
        (["--seconds", "60"], "Ask for at most 4.5 s."),
        (["--speed-up", "80"], "a speed-up of 80 has 1 frames, and it must have at least 2"),
        (["--window", "91"], "the video has 90 frames, and the network judges windows of 91"),
        (["--window", "1"], "window (1) must be at least 2 frames for backbone tiny3d"),
        (["--sound"], "--sound is for a film that is sped up"),
        (["--threshold", "1.5"], "'1.5' must be a number above 0 and below 1"),
        (["--smooth-seconds", "-1"], "'-1' must be a number of at least 0"),
        (["--speed-up", "2", "--seconds", "2"], "not allowed with argument"),
        (["--decoder", "vlc", "--map"], "vlc"),
        (["--speedup", "2"], "Did you mean '--speed-up'?"),
    ],
)
def test_mistakes_are_one_paragraph_and_write_nothing(words, said, run, video, tmp_path, capsys):
    message = told(capsys, "speed", str(video), "--checkpoint", str(run), "--out", str(tmp_path / "out"), *words)
    assert said in message
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_what_is_no_video_is_told(run, video, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    message = told(capsys, "speed", str(video), "--checkpoint", str(run), "--out", str(tmp_path))
    assert "is not an empty folder" in message and (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "a.mp4").write_text("no video")
    for path, said in (("a.mp4", "must be a video that can be read"), ("b.mp4", "does not exist")):
        assert said in told(
            capsys, "speed", str(tmp_path / path), "--checkpoint", str(run), "--out", str(tmp_path / "o")
        )
    assert "is no run folder" in told(
        capsys, "speed", str(video), "--checkpoint", str(tmp_path), "--out", str(tmp_path / "o")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "mine.txt"]


class _Asks(PretextTask):
    """A task that answers clip by clip, but not about speed."""

    def clip_question(self):
        return ClipQuestion("played backward", "forward", 8, 32)


def test_a_network_of_another_task_is_told():
    info = initialize_backbone("tiny3d", {"width": 4}, seed=0).info
    with pytest.raises(
        CheckpointError, match=r"does not answer clip by clip .*ssvid pretrain pretrain/speediness_tiny"
    ):
        asked_task(PretextTask(None, info), "", "a.ckpt")
    other = _Asks(None, info)
    assert asked_task(other, "", "a.ckpt") is other
    asker = Asker(other, initialize_backbone("tiny3d", {"width": 4}, seed=0), other.clip_question(), 8, 2)
    with pytest.raises(CheckpointError, match="whether a clip is played backward, not how fast"):
        require_speed(asker)


def test_a_film_of_fewer_frames_than_shots_is_refused_and_with_as_many_each_is_seen(run):
    times = np.arange(12) / 25
    scenes = [render(draw_scene(kind, (seed,), 48), times).frames_THWC for seed, kind in enumerate(MOTIONS[:6])]
    frames_THWC = np.concatenate(scenes)
    told = r"5 frames cannot show the 6 shots .* a speed-up of at most 12, or for at least 0.24 s"
    with pytest.raises(DataError, match=told):
        ssvid.speed_up(frames_THWC, checkpoint=run, factor=14.4, **QUIET)
    sped = ssvid.speed_up(frames_THWC, checkpoint=run, factor=12, **QUIET)
    assert sped.curve.shots.tolist() == [0, 12, 24, 36, 48, 60]
    assert (sped.film_frames // 12).tolist() == [0, 1, 2, 3, 4, 5] and sped.film_frames[-1] == 71
    drawing, frame = draw_curve(sped.curve, 72 / 25, sped=sped)
    assert drawing.count('class="cut"') == 5 and "cuts at 0.5 s, 1.0 s, 1.4 s" in drawing
    assert f'class="cut" x1="{frame.left + (frame.right - frame.left) / 6:.1f}"' in drawing


def test_a_length_must_be_given_once(run, video):
    for options in ({}, {"factor": 2, "seconds": 2}):
        with pytest.raises(RecipeError, match="exactly one of them must be above 0"):
            ssvid.speed_up(video, checkpoint=run, **options, **QUIET)
    with pytest.raises(DataError, match=r"an array of shape \(4, 4, 3\) and type uint8, must be frames"):
        ssvid.speed_curve(np.zeros((4, 4, 3), np.uint8), checkpoint=run, **QUIET)


def test_help_says_what_it_writes(capsys):
    assert main(["speed", "--help"]) == 0
    assert "ssvid speed my.mp4 --checkpoint runs/mine --speed-up 2 --map --out fast" in capsys.readouterr().out


def test_a_video_that_looks_natural_at_every_speed_is_doubted(run):
    frames_THWC = np.stack([numbered(5)] * 60)
    curve = ssvid.speed_curve(frames_THWC, checkpoint=run, **QUIET).probs_T
    for threshold, told_of in (
        (min(0.99, curve[0] + 0.01), "times as fast, the most that was tried"),
        (0.01, "at no speed-up at all"),
    ):
        sped = ssvid.speed_up(frames_THWC, checkpoint=run, factor=2, speed=SpeedUpConfig(threshold=threshold), **QUIET)
        (note,) = sped.curve.notes
        assert note.startswith("100 % of the video look natural") and told_of in note
