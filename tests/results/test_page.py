"""The page of a run: complete, valid, nothing loaded, everything text that is text; and a real browser opens it."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ssvid.results.confusion import draw_confusion
from ssvid.results.curves import panels_of
from ssvid.results.page import RunPage, embed_pictures, render_page
from ssvid.results.table import build_table
from ssvid.video import write_video
from tests.browser import find_browser, open_browser
from tests.results.test_curves import LOG
from tests.results.test_table import CHANGED, result, row

EVIL = '<script>alert("1")</script>&'
VOID = {"meta", "link", "img", "br", "hr", "input", "rect", "line", "polyline", "circle"}


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts, self.open, self.wrong = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def save_picture(path, size=(40, 30), noise=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.effect_noise(size, 90).convert("RGB") if noise else Image.new("RGB", size, (200, 30, 30))
    picture.save(path)
    return path


def save_drawing(path):
    path.write_text(draw_confusion(EVIL, [EVIL, "walk"], np.eye(2, dtype=np.int64)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> RunPage:
    """A run whose names, classes, warnings and recipe try to be HTML."""
    folder = tmp_path_factory.mktemp("page")
    files = [
        ("mine", save_drawing(folder / "confusion.svg")),
        ("pretraining", save_picture(folder / "<img src=x>.png")),
    ]
    pictures, left_out = embed_pictures(files)
    rows = [
        row("pretrained", "1111", notes=[EVIL], protocol=CHANGED),
        row("random", "1100", protocol=CHANGED),
    ]
    results = [result("mine", *rows, per_class={"pretrained": {"probe_top1": {EVIL: [1, 2], "walk": [2, 2]}}})]
    outcome = {
        "num_steps": 10,
        "metrics": {"accuracy": 0.75},
        "chance": {"accuracy": 0.5},
        "advice": {"take": "last", "why": EVIL, "warnings": {"collapse": EVIL}},
        "unreadable": {EVIL: "broken"},
    }
    return RunPage(
        title=EVIL, kind="pretraining run", outcome=outcome, is_complete=True, panels=panels_of(LOG, {"accuracy": 0.5}),
        table=build_table(results), results=results, pictures=pictures, left_out=left_out,
        environment={"python": "3.11", "gpus": [], "packages": {"torch": EVIL}}, recipe=f"kind: pretrain\nname: {EVIL}\n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def parsed(page) -> Page:
    return Page(render_page(page))


def test_every_tag_is_closed_and_every_id_is_one(parsed):
    assert parsed.open == parsed.wrong == []
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 6
    assert all(a["href"][1:] in ids for a in parsed.all("a"))
    used = {name for _, attributes in parsed.tags for name in attributes.get("aria-labelledby", "").split()}
    assert used <= set(ids)


def test_nothing_is_run_and_nothing_is_loaded(page, parsed):
    assert not parsed.all("script")
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    places = [attributes[key] for _, attributes in parsed.tags for key in ("src", "href") if key in attributes]
    assert all(place.startswith(("#", "data:")) for place in places)
    assert not re.findall(r"url\(|@import|https?://", render_page(page))
    (policy,) = [meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_what_looks_like_html_stays_text(parsed):
    holding = [text for text in parsed.texts if EVIL in text]
    assert len(holding) >= 7  # title, heading, warning, advice, unreadable, note, class, version, recipe
    assert len(parsed.all("img")) == 2


def test_it_says_everything(page, parsed):
    text = " ".join(parsed.texts)
    for words in (
        "Warning:",
        "take checkpoints/last.ckpt",
        "10 optimizer steps",
        "val/accuracy",
        "0.75",
        "probe top-1",
    ):
        assert words in text
    for words in (
        "100.0",
        "+50.0",
        "ucf101-linear@1*",
        "features.num_clips=2 instead of 10",
        "1 of 2",
        "python",
        "none",
    ):
        assert words in text
    assert "kind: pretrain" in text
    assert len(parsed.all("svg")) == len(page.panels) == 3


def test_who_does_not_see_it_is_told(parsed):
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(th.get("scope") in ("col", "row") for th in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) >= 4
    assert all(img["alt"].strip() and int(img["width"]) > 0 for img in parsed.all("img"))
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in parsed.all("svg"))
    assert all(region["aria-label"] for region in parsed.all("div") if region.get("role") == "region")


def test_a_run_that_goes_on_says_so(page):
    text = render_page(
        RunPage("r", "pretraining run", {}, False, page.panels, None, [], [], [], {}, "kind: pretrain\n")
    )
    assert "not complete" in text
    assert "Nothing was evaluated yet." in text
    assert '<h2 id="pictures">' not in text


def test_pictures_are_embedded_whole_smaller_or_not_and_it_is_said(tmp_path, monkeypatch):
    small = save_picture(tmp_path / "small.png")
    save_picture(tmp_path / "large.png", (1700, 500), noise=True)
    (tmp_path / "broken.png").write_bytes(small.read_bytes()[:40])
    (tmp_path / "words.png").write_text("not a picture")
    files = [("w", tmp_path / name) for name in ("small.png", "large.png", "broken.png", "words.png")]
    (first, second), left_out = embed_pictures(files)
    assert base64.b64decode(first.uri.partition(",")[2]) == small.read_bytes()
    shrunk = Image.open(io.BytesIO(base64.b64decode(second.uri.partition(",")[2])))
    assert shrunk.size == (second.width_px, second.height_px) == (1600, 471)
    assert [text.partition(":")[0] for text in left_out] == ["broken.png", "words.png"]
    assert second.uri.startswith("data:image/webp;")
    monkeypatch.setattr("ssvid.results.page._MOST_BYTES", 10)
    assert embed_pictures(files[:1]) == ([], ["small.png: the page would be larger than 0 MB"])
    many = [("w", tmp_path / f"{i}.png") for i in range(40)]
    for _, path in many:
        path.write_bytes(small.read_bytes())
    monkeypatch.undo()
    pictures, left_out = embed_pictures(many)
    assert (len(pictures), len(left_out)) == (24, 16)
    assert (pictures[0].name, pictures[-1].name) == ("0.png", "39.png")


def test_of_a_long_run_the_first_and_the_last_pictures_stay_and_the_page_can_be_mailed(tmp_path, monkeypatch):
    """Pictures as a task draws them: clips of video, about 300 kB of PNG each."""
    tile = Image.effect_noise((128, 96), 60).resize((640, 480), Image.Resampling.BICUBIC).convert("RGB")
    tile.save(tmp_path / "0.png")
    assert (tmp_path / "0.png").stat().st_size > 250_000
    files = [("pretraining", tmp_path / f"{epoch}.png") for epoch in range(30)]
    for _, path in files[1:]:
        path.write_bytes((tmp_path / "0.png").read_bytes())
    pictures, _ = embed_pictures(files)
    assert (len(pictures), pictures[0].name, pictures[-1].name) == (24, "0.png", "29.png")
    assert sum(len(picture.uri) for picture in pictures) < 8_000_000
    for limit, names in (
        (5, ["0.png", "7.png", "14.png", "22.png", "29.png"]),
        (2, ["0.png", "29.png"]),
        (1, ["29.png"]),
    ):
        monkeypatch.setattr("ssvid.results.page._MOST_BYTES", (limit + 0.5) * len(pictures[0].uri))
        fewer, left_out = embed_pictures(files)
        assert [fewer[0].name, fewer[-1].name] == [names[0], names[-1]]
        assert len(fewer) == limit
        assert len(left_out) == 30 - limit


def test_a_film_of_an_evaluation_is_held_and_only_then_may_the_page_play(page, tmp_path):
    write_video(tmp_path / "best-swan.mp4", [np.full((48, 64, 3), 30 * i, np.uint8) for i in range(8)], fps=8)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    files = [("track", tmp_path / name) for name in ("best-swan.mp4", "broken.mp4")]
    (shown,), left_out = embed_pictures(files)
    assert (shown.width_px, shown.height_px, shown.is_film) == (64, 48, True)
    assert base64.b64decode(shown.uri.partition(",")[2]) == (tmp_path / "best-swan.mp4").read_bytes()
    assert left_out == ["broken.mp4: cannot be read (DecodeError)"]
    text = render_page(replace(page, pictures=[*page.pictures, shown]))
    parsed = Page(text)
    (film,) = parsed.all("video")
    assert film["src"] == shown.uri and "controls" in film and "best-swan.mp4" in film["aria-label"]
    policies = [Page(render_page(p)).all("meta")[1]["content"] for p in (page, replace(page, pictures=[shown]))]
    assert ["media-src data:" in policy for policy in policies] == [False, True]
    assert parsed.open == parsed.wrong == []


BROWSER = find_browser()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_a_real_browser_opens_it(page, tmp_path):
    """Nothing is requested, nothing complains, every picture is decoded, and the names did not become elements."""
    path = tmp_path / "run.html"
    path.write_text(render_page(page), encoding="utf-8")
    with open_browser(BROWSER, tmp_path / "profile") as browser:
        browser.open(path)
        decoded = browser.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
        assert decoded == [page.pictures[0].width_px, 40]
        assert browser.evaluate("document.compatMode") == "CSS1Compat"
        assert browser.evaluate("document.querySelector('h1').textContent") == EVIL
        assert browser.evaluate("document.scripts.length") == 0
        assert browser.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBBox().width > 100)")
        # as wide as a telephone: the tables scroll in their place, the page does not
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        ink = "getComputedStyle(document.body).backgroundColor"
        assert browser.evaluate(ink) == "rgb(255, 255, 255)"
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.evaluate(ink) == "rgb(22, 24, 28)"
        requested = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
        assert [url for url in requested if not url.startswith("data:")] == [path.resolve().as_uri()]
        assert browser.told("Runtime.consoleAPICalled") == browser.told("Runtime.exceptionThrown") == []
        assert browser.told("Log.entryAdded") == []
