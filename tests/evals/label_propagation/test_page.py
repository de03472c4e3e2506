"""The page of one's own footage: whole, valid, without a script; and a real browser plays its films."""

import base64
import re

import numpy as np
import pytest

from ssvid.evals.label_propagation.drawing import COLORS
from ssvid.evals.label_propagation.films import write_film
from ssvid.evals.label_propagation.page import (
    Followed,
    TrackPage,
    address,
    film,
    jaccard_panels,
    render_track_page,
    still,
)
from tests.browser import find_browser, open_browser
from tests.results.test_page import Page

EVIL = '<b onclick="alert(1)">swan & "car"</b>'
BROWSER = find_browser()


def pictures(count=8):
    return [np.full((48, 64, 3), 25 * i, np.uint8) for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    write_film(tmp_path / "a film.mp4", iter(pictures()), 8)
    return tmp_path


def page_with(*films, **more) -> TrackPage:
    lines = {number: [(frame, 0.5 + number / 100) for frame in range(1, 6)] for number in range(1, 6)}
    values = {
        "title": EVIL,
        "about": "5 objects followed.",
        "films": films,
        "sheet": still(pictures()[3], EVIL),
        "files": [(address("a film.mp4"), "a film.mp4", "the film")],
        "facts": [("video", EVIL)],
        "settings": "top_k: 10",
        "notes": [EVIL],
        "objects": [(Followed("object", number), ["0", "1 %"]) for number in range(1, 6)],
        "object_columns": ["first given in frame", "share"],
        "points": [(Followed("point", 1), ["0"])],
        "point_columns": ["given in frame"],
        "panels": jaccard_panels(lines),
    }
    return TrackPage(**values | more)


def test_every_tag_is_closed_and_what_looks_like_html_stays_text(folder):
    parsed = Page(render_track_page(page_with(film(folder / "a film.mp4", pictures()[4], EVIL, EVIL))))
    assert parsed.open == parsed.wrong == []
    assert not parsed.all("b") and not parsed.all("script")
    assert sum(EVIL in text for text in parsed.texts) >= 4
    assert len(parsed.all("video")) == 1 and len(parsed.all("svg")) == 2, "five objects are two drawings"
    assert all(image["alt"] for image in parsed.all("img")) and parsed.all("video")[0]["aria-label"] == EVIL
    colors = [span["style"] for span in parsed.all("span")]
    assert colors[0] == "background: #{:02x}{:02x}{:02x}".format(*COLORS[0]) and len(colors) == 6


def test_what_is_not_there_has_no_heading(folder):
    bare = page_with(film(folder / "a film.mp4", pictures()[4], "", ""), objects=(), points=(), panels=(), notes=())
    heads = re.findall(r"<h2>(.*?)</h2>", render_track_page(bare))
    assert heads == ["Key frames", "Files", "How it was made"]


def test_a_small_film_is_in_the_page_and_a_large_one_beside_it(folder):
    path = folder / "a film.mp4"
    held, beside = film(path, pictures()[4], "a", "b"), film(path, pictures()[4], "a", "b", most_bytes=100)
    assert base64.b64decode(held.uri.partition(",")[2]) == path.read_bytes()
    assert beside.uri == "./a%20film.mp4" and (beside.width_px, beside.height_px) == (64, 48)
    assert beside.poster.startswith("data:image/webp;base64,")


def test_names_are_addresses():
    assert address("50% of #1?.mp4") == "./50%25%20of%20%231%3F.mp4"


def test_a_very_wide_sheet_becomes_smaller():
    shown = still(np.zeros((100, 4800, 3), np.uint8), "sheet")
    assert (shown.width_px, shown.height_px) == (2400, 50)


def test_curves_of_frames_say_so():
    (panel,) = jaccard_panels({3: [(1, 0.25), (2, 0.75)]})
    text = render_track_page(page_with(panels=[panel]))
    assert "object 3: 0.25 at frame 1, 0.75 at frame 2, lowest 0.25, highest 0.75" in text
    assert "optimizer" not in text and "step" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_a_real_browser_plays_films_in_the_page_and_beside_it(folder):
    path = folder / "a film.mp4"
    both = [film(path, pictures()[4], "a", "b"), film(path, pictures()[4], "a", "b", most_bytes=100)]
    (folder / "page.html").write_text(render_track_page(page_with(*both)), encoding="utf-8")
    shown = """Promise.all([...document.querySelectorAll('video')].map(async film => {
        await film.play(); return [film.videoWidth, film.videoHeight, film.duration]; }))"""
    with open_browser(BROWSER, folder / "profile") as browser:
        browser.open(folder / "page.html")
        if browser.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64000a\"')") == "":
            pytest.skip("this Chromium was built without H.264")
        assert browser.evaluate(shown) == [[64, 48, 1], [64, 48, 1]]
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        requested = {event["request"]["url"] for event in browser.told("Network.requestWillBeSent")}
        beside = {url for url in requested if not url.startswith("data:")}
        assert beside == {(folder / "page.html").resolve().as_uri(), path.resolve().as_uri()}
        assert browser.told("Log.entryAdded") == [], "the policy of the page forbids none of it"
