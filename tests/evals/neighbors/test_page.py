"""The page and the picture of neighbors: who is on them, that they say what is right, and that they need nothing else."""

import base64
import io
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from ssvid.data.manifest import VideoRow
from ssvid.evals.contract import Subject, Tools
from ssvid.evals.measuring import measure, see
from ssvid.evals.neighbors.knn import Neighbors
from ssvid.evals.neighbors.page import (
    TILE_PX,
    Shown,
    clip_around_middle,
    draw_queries,
    neighbor_page,
    neighbor_picture,
    shown_queries,
)
from ssvid.evals.neighbors.retrieval import Retrieval, retrieve
from ssvid.features.protocol import RetrievalProtocol
from ssvid.features.store import Features
from ssvid.results.rows import ResultRow
from tests.browser import find_browser, open_browser
from tests.frozen import COLORS, labeled


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


class Found(NamedTuple):
    rows: list[ResultRow]
    train: Features
    test: Features
    neighbors: Neighbors


@pytest.fixture(scope="module")
def found(manifest):
    from ssvid.backbones import initialize_backbone
    from ssvid.features.protocol import FeatureProtocol

    features = FeatureProtocol(num_frames=8, num_clips=1, crop_px=24, resize_px=28, workers=0)
    protocol, data, tools = RetrievalProtocol(ks=(1, 3)), labeled(manifest), Tools()
    subject = Subject("pretrained", initialize_backbone("tiny3d", {"width": 4}, seed=0), features)
    seen = see([subject], data, tools)["pretrained"]
    neighbors = retrieve(seen.train, seen.test, protocol).neighbors
    rows = list(measure({Retrieval(): protocol}, subject, seen, data, tools))
    result = Found(rows, seen.train, seen.test, neighbors)
    return result, shown_queries(seen, neighbors, data, num_shown=4, seed=0)


def test_half_of_the_queries_are_wrong_ones_where_there_are_so_many():
    right = np.array([True] * 90 + [False] * 10)
    drawn = draw_queries(right, 12, seed=0)
    assert right[drawn].tolist() == [True] * 6 + [False] * 6
    assert len(set(drawn)) == 12
    assert drawn == draw_queries(right, 12, seed=0) != draw_queries(right, 12, seed=1)
    assert right[draw_queries(right, 40, seed=0)].sum() == 30
    assert right[draw_queries(~right, 40, seed=0)].sum() == 30
    assert sorted(draw_queries(np.array([True, False, True]), 12, seed=0)) == [0, 1, 2]
    assert draw_queries(np.empty(0, dtype=bool), 12, seed=0) == []


def test_each_line_is_a_query_and_its_five_nearest_training_videos(found):
    result, lines = found
    assert len(lines) == 4
    for query, *neighbors in lines:
        position = result.test.ids.index(query.name)
        of_query = np.flatnonzero(result.neighbors.queries_N == position)[0]
        indices = result.neighbors.indices_NK[of_query][:5]
        assert [shown.name for shown in neighbors] == [result.train.ids[i] for i in indices]
        assert [shown.is_right for shown in neighbors] == [result.train.labels[i] == query.label for i in indices]
        assert [shown.cosine for shown in neighbors] == sorted((shown.cosine for shown in neighbors), reverse=True)
        assert query.is_right is query.cosine is None


def test_a_tile_is_the_middle_frame(found, manifest):
    """The patch is where the middle frame, 7 of 14, has it: its color fills columns 11 to 30 of 44."""
    _, lines = found
    tile = np.asarray(lines[0][0].tile).astype(int)
    height, width = tile.shape[:2]
    assert abs(width / height - 44 / 36) < 0.02
    color = np.array(COLORS[lines[0][0].label])
    near = np.abs(tile[height // 2] - color).sum(axis=1) < 120
    edges = np.flatnonzero(near)[[0, -1]] * 44 / width
    np.testing.assert_allclose(edges, [11, 30.5], atol=1.5)


def test_clips_play_in_the_page_frame_by_frame(found):
    """14 frames at 25 per second: all of them, 40 ms each, the patch one column further in each."""
    result, lines = found
    sources = Page(neighbor_page(lines, result.rows, seed=0)).all("source")
    assert len(sources) == sum(map(len, lines))
    assert {source["media"] for source in sources} == {"(prefers-reduced-motion: no-preference)"}
    content = base64.b64decode(sources[0]["srcset"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as moving:
        assert (moving.format, moving.n_frames, moving.info["loop"]) == ("WEBP", 14, 0)
        middles = []
        for frame in range(moving.n_frames):
            moving.seek(frame)
            moving.load()
            assert moving.info["duration"] == 40
            tile = np.asarray(moving.convert("RGB")).astype(int)
            near = np.abs(tile[tile.shape[0] // 2] - COLORS[lines[0][0].label]).sum(axis=1) < 150
            middles.append(np.flatnonzero(near).mean() * 44 / tile.shape[1])
    assert np.diff(middles) == pytest.approx(np.ones(13), abs=0.35)


@pytest.mark.parametrize(
    ("count", "fps", "frames", "clip_ms"), [(300, 30.0, 16, 125), (10, 25.0, 10, 40), (1, 25.0, 1, 40)]
)
def test_a_clip_is_two_seconds_around_the_middle_at_most(count, fps, frames, clip_ms):
    row = VideoRow("v.mp4", 1000, fps, 36, 44, start_frame=100, end_frame=100 + count)
    numbers, told = clip_around_middle(row)
    assert len(numbers) == len(set(numbers)) == frames and told == clip_ms
    assert 100 <= numbers[0] <= numbers[-1] < 100 + count
    assert abs((numbers[0] + numbers[-1]) / 2 - (100 + count / 2)) <= 4


def test_the_page_needs_no_other_file_and_says_what_is_right(found):
    result, lines = found
    text = neighbor_page(lines, result.rows, seed=0)
    page = Page(text)
    assert not page.all("script")
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert "http:" not in text and "https:" not in text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "prefers-color-scheme: dark" in text
    images = page.all("img")
    assert len(images) == sum(map(len, lines))
    for image in images:
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert (picture.format == "JPEG" and max(picture.size) == TILE_PX[0]) or picture.height == TILE_PX[1]
    shown = [s for line in lines for s in line]
    classes = [figure["class"] for figure in page.all("figure")]
    assert classes == [{True: "right", False: "wrong", None: "query"}[s.is_right] for s in shown]
    words = [t for t in page.texts if t in ("\u2713 same class", "\u2717 another class", "query")]
    assert words == [
        {True: "\u2713 same class", False: "\u2717 another class", None: "query"}[s.is_right] for s in shown
    ]
    for needed in (result.train.weights_sha256, "manner own", "R@1", "R@3", f"{100 * result.rows[0].value:.1f} %"):
        assert needed in text


def test_labels_and_names_are_text_and_no_markup(found):
    result, _ = found
    tile = Image.new("RGB", (8, 8))
    nasty = Shown(tile, "<script>alert(1)</script>", 'a"onload="x.mp4')
    page = Page(neighbor_page([[nasty]], result.rows, seed=0))
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == 'middle frame of a"onload="x.mp4'
    assert "<script>alert(1)</script>" in page.texts


def test_the_picture_frames_right_and_wrong_and_marks_them(found):
    result, _ = found
    blank = Image.new("RGB", TILE_PX, (128, 128, 128))
    line = [
        Shown(blank, "caf\u00e9 \u6f22", "q"),
        Shown(blank, "a", "r", 0.9, True),
        Shown(blank, "b", '<w>"', 0.8, False),
    ]
    picture = ET.fromstring(neighbor_picture([line], result.rows))
    frames, marks = ([e.get("class") for e in picture.iter() if e.tag.endswith(tag)] for tag in ("}rect", "}circle"))
    assert frames == ["paper", "frame query", "frame right", "frame wrong"]
    assert marks == ["mark right", "mark wrong"]
    images = [element for element in picture.iter() if element.tag.endswith("}image")]
    assert [image[0].text for image in images] == ["middle frame of q", "middle frame of r", 'middle frame of <w>"']
    assert all(image.get("href").startswith("data:image/jpeg;base64,") for image in images)
    written = [element.text for element in picture.iter() if element.tag.endswith("}text")]
    assert written[-6:] == ["caf\u00e9 \u6f22", "query", "a", "cosine 0.900", "b", "cosine 0.800"]
    assert written[0].startswith("Retrieval, ") and written[3].startswith("R@1 ")


def test_a_video_that_is_gone_is_a_gray_tile_that_says_so(found, manifest):
    from dataclasses import replace

    from ssvid.evals.neighbors.page import shown_video

    shown = shown_video(manifest, replace(manifest.rows[0], path="gone.mp4"))
    tile = shown.tile
    assert tile.size == TILE_PX and shown.clip_uri == ""
    assert tile.getpixel((TILE_PX[0] - 1, TILE_PX[1] - 1)) == (200, 200, 200)


def test_a_named_protocol_is_in_the_head(found):
    from dataclasses import replace

    result, lines = found
    rows = [replace(row, context={**row.context, "protocol": {"id": "ucf101-retrieval@1"}}) for row in result.rows]
    assert isinstance(rows[0], ResultRow)
    assert "protocol ucf101-retrieval@1" in neighbor_page(lines, rows, seed=0)


BROWSER = find_browser()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_a_telephone_shows_it_as_wide_as_it_is_and_the_night_dark(found, tmp_path):
    result, lines = found
    path = tmp_path / "neighbors.html"
    path.write_text(neighbor_page(lines, result.rows, seed=0), encoding="utf-8")
    with open_browser(BROWSER, tmp_path / "profile") as browser:
        browser.open(path)
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.evaluate("window.innerWidth") == 360
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)"
        assert browser.told("Log.entryAdded") == []
