"""``ssvid layers why``: fits that are kept, sentences that are made of figures, the page, mistakes."""

import json
import signal
from functools import partial

import numpy as np
import pytest

import ssvid
from ssvid.errors import DataError, RecipeError
from ssvid.layers.atlas.known import LECTURE_PSNR
from ssvid.layers.omnimatte import known
from ssvid.layers.omnimatte.known import ABLATION, EFFECTS
from ssvid.programs import layers_why, layers_why_fits
from ssvid.programs.layers_why_claims import claims_of
from ssvid.programs.layers_why_fits import ORDER, ORDER_BLIND, PARTS, SHADOWS, WhyFit, WhyFolder, WhySettings, fits_of
from ssvid.stopping import Stopped
from ssvid.video.synthetic_effects import walkers
from tests.cli.test_cli import told
from tests.results.test_page import Page

STEPS = (50, 100, 150)
COMPLETE = {
    "clean background, dB": 41.0,
    "removal within the region, dB": 45.6,
    "IoU with object and shadow": 0.92,
    "IoU of the mask alone": 0.52,
    "alpha in its own shadow": 0.63,
    "alpha in its own shadow, truth": 0.41,
    "alpha in the other's shadow": 0.02,
    "alpha where nothing of it is": 0.01,
    "video untouched, dB": 10.8,
    "mask alone replaced by the truth, dB": 15.2,
}
ATLAS = {
    "psnr": 20.0,
    "psnr_object": 29.0,
    "track_worst": 0.2,
    "stretch": 0.1,
    "unseen_energy": 0.001,
    "alpha_iou": 0.9,
}


def effects(near, far, own):
    halves = dict(zip(EFFECTS, (near, far, own), strict=True))
    return {"steps": STEPS, "shares": dict.fromkeys(EFFECTS, (0.1, 0.4, 0.6)), "halves": halves}


def shadows(**changed):
    curves = {"walker": (0.2, 0.4, 0.6), "other": (0.2, 0.3, 0.6)}
    return {"steps": STEPS, "figures": COMPLETE | changed, "own": curves, "other": curves}


def atlas(**changed):
    return {"steps": STEPS, "figures": ATLAS | changed, "psnr": (15.0, 18.0, 20.0), "track_px": (9.0, 2.0, 0.2)}


def records():
    """Of every fit, as they are kept."""
    found = {ORDER: effects(100, 175, 275), ORDER_BLIND: effects(75, 275, None)}
    found |= {WhyFit("walkers", name): shadows() for name in ABLATION}
    found[WhyFit("walkers", "mask loss to the end")] = shadows(**{"IoU with object and shadow": 0.55})
    lines = {
        "complete": atlas(),
        "no flow": atlas(track_worst=7.0, psnr=19.0),
        "no rigidity": atlas(stretch=0.2, psnr=19.9),
        "no sparsity": atlas(unseen_energy=0.3, psnr=22.0),
        "grid atlas": atlas(track_worst=12.0, psnr=27.0),
    }
    found |= {WhyFit("layered", name): line for name, line in lines.items()}
    assert set(found) == set(fits_of(list(PARTS)))
    return {fit: {"cpu_seconds": 1.0, **record} for fit, record in found.items()}


def kept(path, found=None, **settings):
    """A folder in which fits have ended."""
    folder = WhyFolder.open(path, WhySettings(**settings))
    for number, (fit, record) in enumerate((found or records()).items()):
        folder.keep(fit, record, np.full((8, 12, 3), number, np.uint8))
    return folder


def verdicts(found):
    return {(claim.source, claim.says.split(":")[0]): claim.agrees for claim in claims_of(found)}


# ---- sentences


def test_what_is_said_is_judged_by_figures():
    found = verdicts(records())
    assert found[("lecture", "an effect near the object is learned before one far from it")]
    assert found[("lecture", "an effect that moves as the object does is learned before one that moves by itself")]
    assert found[("lecture", "of two people each takes their own shadow")]
    assert {name: found[("lecture", name)] for name in LECTURE_PSNR if name != "complete"} == {
        "no rigidity": True,
        "no flow": True,
        "no sparsity": False,
    }
    assert {name: found[("purpose", name)] for name in ABLATION if name != "complete"} == {
        "no flow in the input": False,
        "mask alone as input": False,
        "no sparsity": True,  # of an atlas, told after that of an Omnimatte
        "sparsity ten times as strong": False,
        "no mask loss": False,
        "mask loss to the end": True,
    }
    assert found[("purpose", "mask alone as input, three ellipses")]
    assert not found[("purpose", "no rigidity")] and found[("purpose", "no flow")]


def test_what_never_came_is_last_and_a_tie_is_no_order():
    together, near = claims_of({ORDER: effects(75, 275, 275)})
    assert not together.agrees and near.agrees
    assert together.here == "half of near after 75 steps, half of far after 275 steps, half of own after 275 steps"
    together, near = claims_of({ORDER: effects(75, None, None)})
    assert not together.agrees and near.agrees
    together, near = claims_of({ORDER: effects(None, None, None)})
    assert not together.agrees and not near.agrees


def test_a_shadow_in_both_layers_is_nobodys_own():
    (claim,) = claims_of({SHADOWS: shadows(**{"alpha in the other's shadow": 0.3})})
    assert not claim.agrees and claim.verdict == "does not agree"
    assert claim.here == "alpha in the own shadow at least 0.63, in the other's at most 0.30; truly 0.41 and 0"


def test_a_figure_is_told_beside_that_of_the_complete_model():
    here = {(claim.part, claim.says.split(":")[0], claim.source): claim.here for claim in claims_of(records())}
    assert here[("atlas", "no flow", "purpose")] == "7, complete 0.2: 35 times"
    assert here[("atlas", "no sparsity", "lecture")] == "20.00 to 22.00 dB"
    assert here[("omnimatte", "mask loss to the end", "purpose")] == "IoU with object and shadow: 0.55, complete 0.92"


# ---- the folder and the page


def test_all_parts_on_one_page(tmp_path):
    kept(tmp_path / "why")
    result = ssvid.explain_layers(tmp_path / "why", show_progress=False)  # nothing is left to fit
    assert result.parts == tuple(PARTS)
    text = result.page.read_text()
    page = Page(text)
    assert not page.wrong and not page.open
    assert not page.all("script") and not page.all("link")[1:]
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert len(page.all("svg")) == 1 + 1 + 8 + 8
    assert len(page.all("img")) == 1 + 1 + 8 + 5
    words = " ".join(" ".join(page.texts).split())
    for sentence in (
        "2 of 7 show here.",
        "half of own motion: never, complete after 275 steps shows",
        "no sparsity: PSNR falls from 29.85 to 28.80 dB",
        "20.00 to 22.00 dB does not agree",
        "video untouched - 10.8",
        "half of near after 100 steps",
    ):
        assert sentence in words, sentence
    assert "Not fitted yet" not in words and "for a try" not in words
    written = json.loads((tmp_path / "why" / "results.json").read_text())
    assert len(written["fits"]) == 14 and len(written["claims"]) == len(result.claims)
    assert written["fits"][0]["scene"] == "followers" and written["fits"][0]["halves"]["near"] == 100


def test_a_part_is_fitted_once_and_shown_with_what_was_there(tmp_path, capsys, monkeypatch):
    for module in (known, layers_why_fits):
        monkeypatch.setattr(module, "walkers", partial(walkers, num_frames=6))
    out = tmp_path / "why"
    kept(out, {fit: record for fit, record in records().items() if fit.scene == "followers"}, iterations=2)
    result = ssvid.explain_layers(out, only=["shadows"], iterations=2)
    assert result.parts == ("effects", "shadows")
    assert "fit 1/1: walkers, complete" in capsys.readouterr().err
    text = result.page.read_text()
    assert "Not fitted yet: What each part of an Omnimatte is for; What each loss of an atlas is for." in text
    assert "Every fit had 2 steps only" in text
    before = {path: path.stat().st_mtime_ns for path in (out / "fits").iterdir()}
    assert len(before) == 2 * 3
    again = ssvid.explain_layers(out, only=["shadows"], iterations=2)
    assert "1 of 1 fits are there" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (out / "fits").iterdir()} == before
    assert again.claims == result.claims


def test_a_signal_ends_it_and_the_same_command_goes_on(tmp_path, monkeypatch):
    fits = []

    def measure(fit, settings, on_step):
        if len(fits) == 2:
            signal.raise_signal(signal.SIGTERM)
        on_step(1)
        fits.append(fit)
        return records()[fit], np.zeros((8, 12, 3), np.uint8)

    monkeypatch.setattr(layers_why.WhyFit, "measure", measure)
    with pytest.raises(Stopped, match=r"SIGTERM.* Go on with the same command"):
        ssvid.explain_layers(tmp_path / "why", show_progress=False)
    assert not (tmp_path / "why" / "why.html").exists()
    fits.append("the signal was told once")
    assert ssvid.explain_layers(tmp_path / "why", show_progress=False).parts == tuple(PARTS)
    ended = [fit for fit in fits if isinstance(fit, WhyFit)]
    assert ended == fits_of(list(PARTS))  # each once, in order


# ---- mistakes


def test_mistakes_are_one_paragraph(tmp_path, capsys):
    out = tmp_path / "why"
    kept(out, {})
    assert "holds fits of seed 0, iterations 0" in told(capsys, "layers", "why", "--out", str(out), "--seed", "1")
    assert "asked for is seed 0, iterations 5" in told(capsys, "layers", "why", "--out", str(out), "--iterations", "5")
    assert "unknown value 'atlass'" in told(capsys, "layers", "why", "--out", str(out), "--only", "atlass")
    with pytest.raises(RecipeError, match="Did you mean 'atlas'"):
        ssvid.explain_layers(out, only=["atlass"])
    with pytest.raises(RecipeError, match="seed"):
        ssvid.explain_layers(out, seed=-1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is no folder of ssvid layers why.*Nothing is overwritten"):
        ssvid.explain_layers(other)
    kept(out, {SHADOWS: shadows()})
    (out / "fits" / "walkers-complete.png").unlink()
    with pytest.raises(
        DataError, match=r"complete\.png cannot be read \(FileNotFoundError\)\. Remove .*complete\.json too"
    ):
        ssvid.explain_layers(out, only=["shadows"], show_progress=False)
    (out / "fits" / "walkers-complete.json").write_text("{")
    with pytest.raises(DataError, match=r"is damaged .*Remove it, and give the command again"):
        ssvid.explain_layers(out, only=["shadows"], show_progress=False)
