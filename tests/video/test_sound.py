"""Sound beside a film that was sped up in pieces: exact lengths, borders in step, the pitch kept."""

import av
import numpy as np
import pytest

from ssvid.video import write_video
from ssvid.video.sound import SOUND_HZ, Piece, add_sound, has_sound, pieces_of, stretched, stretched_pieces
from tests.conftest import moving_square

FPS, SECONDS = 25, 8
ONSETS = (1.0, 3.0, 4.6, 6.2)  # of a tone of 100 ms


def tones(seconds=SECONDS):
    time_N = np.arange(int(seconds * SOUND_HZ)) / SOUND_HZ
    loud_N = sum(((time_N >= at) & (time_N < at + 0.1)) for at in ONSETS)
    return (0.8 * loud_N * np.sin(2 * np.pi * 1000 * time_N)).astype(np.float32)[None].repeat(2, 0)


def onsets(samples_2N):
    """When a tone begins after 50 ms of silence."""
    loud = np.flatnonzero(np.abs(samples_2N[0]) > 0.2)
    return loud[np.diff(loud, prepend=-SOUND_HZ) > 0.05 * SOUND_HZ] / SOUND_HZ


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_with_tones(tmp_path_factory.mktemp("sound"))


def write_with_tones(folder, frames=None):
    """A file with pictures and uncompressed sound, and ``silent.mp4`` beside it."""
    write_video(folder / "silent.mp4", frames or moving_square(FPS * SECONDS), FPS)
    with av.open(str(folder / "silent.mp4")) as made, av.open(str(folder / "loud.mkv"), "w") as container:
        pictures = container.add_stream_from_template(made.streams.video[0])
        sound = container.add_stream("pcm_s16le", rate=SOUND_HZ, layout="stereo")
        for packet in made.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        whole = (tones() * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(whole), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_HZ, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return folder / "loud.mkv"


def test_a_sound_track_is_there_or_not(video):
    assert has_sound(video) and not has_sound(video.with_name("silent.mp4")) and not has_sound(video.parent)


@pytest.mark.parametrize("tempo", [1.0, 1.5, 3.0, 7.0])
def test_stretching_keeps_the_pitch_and_gives_the_length_that_is_asked_for(tempo):
    time_N = np.arange(4 * SOUND_HZ) / SOUND_HZ
    tone_2N = np.sin(2 * np.pi * 440 * time_N).astype(np.float32)[None].repeat(2, 0)
    num_out = round(len(time_N) / tempo)
    found = stretched(tone_2N, tempo, num_out)
    assert found.shape == (2, num_out)
    middle = found[0, num_out // 4 : 3 * num_out // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SOUND_HZ / len(middle) == pytest.approx(440, rel=0.02)


def test_pieces_are_in_step_at_every_border_and_merge_where_the_tempo_is_alike():
    shown = np.concatenate([np.arange(0, 50), np.arange(50, 150, 4), np.arange(150, 200)])
    pieces = pieces_of(shown / FPS, FPS, 200 / FPS)
    assert 3 <= len(pieces) <= 5
    assert pieces[0].out_start == pieces[0].start == 0
    assert pieces[-1].out_end == len(shown) / FPS and pieces[-1].end == 8.0
    for one, following in zip(pieces, pieces[1:], strict=False):
        assert one.out_end == following.out_start and one.end == following.start
        assert one.end == shown[round(one.out_end * FPS)] / FPS
        assert one.out_end - one.out_start >= 0.5 - 1 / FPS
    assert pieces_of(np.arange(100) / FPS, FPS, 4.0) == [Piece(0, 4.0, 0, 4.0)]


def where(seconds, pieces):
    """When what happens at these seconds of the video is heard in the film: within a piece the tempo is even."""
    borders = [(piece.start, piece.out_start) for piece in pieces] + [(pieces[-1].end, pieces[-1].out_end)]
    return np.interp(seconds, *zip(*borders, strict=True))


def test_tones_are_heard_with_the_frames_that_they_belong_to(video):
    shown = np.concatenate([np.arange(0, 60), np.arange(60, 140, 4), np.arange(140, 200)]) / FPS
    pieces = pieces_of(shown, FPS, SECONDS)
    sound = np.concatenate(list(stretched_pieces(video, pieces)), axis=1)
    assert sound.shape[1] == round(len(shown) / FPS * SOUND_HZ)
    assert onsets(sound) == pytest.approx(where(ONSETS, pieces), abs=1 / FPS)


def test_a_film_gets_its_sound_and_keeps_its_pictures(video, tmp_path):
    film = tmp_path / "film.mp4"
    shown = np.concatenate([np.arange(0, 60), np.arange(60, 140, 4), np.arange(140, 200)])
    frames = moving_square(FPS * SECONDS)
    write_video(film, [frames[i] for i in shown], FPS)
    with av.open(str(film)) as container:
        before = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    pieces = pieces_of(shown / FPS, FPS, SECONDS)
    add_sound(film, video, pieces)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    with av.open(str(film)) as container:
        after = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.audio[0].codec_context.name == "aac"
    assert np.array_equal(before, after)
    with av.open(str(film)) as container:
        parts = [(f.time, f.to_ndarray()) for f in container.decode(audio=0)]
    heard = np.concatenate([part for _, part in parts], axis=1)
    assert onsets(heard) + parts[0][0] == pytest.approx(where(ONSETS, pieces), abs=1 / FPS + 0.005)
