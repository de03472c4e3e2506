"""``ssvid doctor``: one paragraph that holds what was found, and the one command that helps."""

import json

import pytest

from ssvid import __version__
from ssvid.backbones import backbones
from ssvid.cli import doctor, main
from ssvid.data.readers.shelf import readers
from ssvid.registry import BrokenPlugin
from ssvid.tasks import tasks


def test_doctor_tells_versions_decoders_and_plugins(capsys):
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in [
        f"ssvid {__version__}",
        "torch 2.",
        "pytorch-lightning",
        "CPU core",
        "pyav",
        "'auto' takes",
        "backbones",
    ]:
        assert part in text
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decoders"]["pyav"]["works"]
    assert found["auto_decoder"] in found["decoders"]
    assert found["decoders"][found["auto_decoder"]]["works"]
    assert found["tasks"] == tasks.names()
    assert found["backbones"] == backbones.names()
    assert len(found["recipes"]) >= 4
    assert found["cores"] >= 1
    assert found["failures"] == {}


def found_with(**changes):
    works = {"version": "1.0", "problem": None, "works": True}
    found = {
        "ssvid": "1", "python": "3.12", "system": "Linux", "packages": {"torch": "2.15.0", "omegaconf": None}, "cores": 1,
        "gpus": [], "ffmpeg": None, "decoders": {"torchcodec": works, "pyav": works}, "auto_decoder": "pyav",
        "tasks": ["a"], "backbones": ["a", "b"], "recipes": [], "broken_plugins": [], "failures": {}, "warnings": [],
        "faster": None,
    }  # fmt: skip
    return found | changes


def test_the_paragraph():
    text = doctor.paragraph(found_with())
    for part in [
        "omegaconf MISSING",
        "1 CPU core usable; no GPU",
        "FFmpeg: not found",
        "1 task, 2 backbones, 0 recipes",
    ]:
        assert part in text
    assert text.endswith("Nothing to fix was found.")
    gpu = {"name": "Big", "memory_gib": 80.0, "bf16": True}
    text = doctor.paragraph(
        found_with(
            gpus=[gpu, gpu],
            broken_plugins=[{"module": "m.x", "reason": "Oops: no"}],
            failures={"decoders": "OSError: lib"},
            warnings=["careful"],
            faster="do this",
            decoders={"torchcodec": {"version": "0.17", "problem": "cannot be imported (no lib).", "works": False}},
        )
    )
    for part in [
        "2 GPUs: Big (80 GiB, bf16), Big (80 GiB, bf16)",
        "warning: plug-in m.x failed to import: Oops: no",
        "warning: decoders could not be examined: OSError: lib",
        "warning: careful",
        "To make it faster: do this",
        "torchcodec 0.17 (cannot be imported (no lib))",
    ]:
        assert part in text
    assert "Nothing to fix" not in text


@pytest.mark.parametrize(
    ("torch", "cudnn", "words"),
    [
        ("2.9.1+cu128", 91002, ["4 times slower", "bf16 can return wrong"]),
        ("2.9.0", 91400, ["4 times slower"]),
        ("2.9.0", 91500, []),
        ("2.10.0", 90800, ["bf16 can return wrong"]),
        ("2.10.0", 90799, []),
        ("2.11.0", 91003, []),
        ("2.9.0", None, []),
    ],
)
def test_known_bad_combinations(torch, cudnn, words):
    warnings = doctor.cudnn_warnings(torch, cudnn)
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning
    if cudnn == 91002:
        assert "cuDNN 9.10.2" in warnings[0]


@pytest.mark.parametrize(
    ("version", "works", "programs", "root", "command"),
    [
        ("0.17", True, [], True, None),
        (None, False, ["ffmpeg", "apt-get"], True, "pip install 'ssvid[torchcodec]'"),
        (None, False, ["apt-get"], True, "apt-get install -y ffmpeg && pip install 'ssvid[torchcodec]'"),
        (None, False, ["apt-get"], False, "sudo apt-get install -y ffmpeg && pip install 'ssvid[torchcodec]'"),
        ("0.17", False, ["brew"], True, "brew install ffmpeg"),
        ("0.17", False, [], True, "(install FFmpeg 4 or newer)"),
    ],
)
def test_the_one_command_that_makes_it_faster(monkeypatch, version, works, programs, root, command):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}" if name in programs else None)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0 if root else 1000, raising=False)
    decoders = {"torchcodec": {"version": version, "problem": None if works else "x", "works": works}}
    assert doctor.way_to_be_faster(decoders) == command


def test_doctor_reports_a_broken_installation_instead_of_breaking(monkeypatch, capsys):
    def broken():
        raise OSError("libsomething.so is missing")

    monkeypatch.setattr(doctor, "_decoders", broken)
    monkeypatch.setattr(doctor, "package_version", lambda name: None if name == "omegaconf" else "1")
    monkeypatch.setattr(tasks, "broken", [BrokenPlugin("shelf.bad", "SyntaxError: oops")])
    readers.load()
    monkeypatch.setattr(readers, "broken", [BrokenPlugin("shelf.read", "SyntaxError: oops")])
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "warning: decoders could not be examined: OSError: libsomething.so is missing" in text
    assert "omegaconf is not installed. Fix it with: pip install omegaconf" in text
    assert "plug-in shelf.bad failed to import" in text
    assert "plug-in shelf.read failed to import" in text


def test_a_driver_without_cuda_in_torch_is_told(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}" if name == "nvidia-smi" else None)
    assert "torch sees no GPU" in doctor._warnings(found_with(packages={"torch": "1"}))[0]


def test_a_decoder_that_can_be_imported_and_decodes_nothing_is_no_decoder(monkeypatch):
    """As with PyAV 15 and 16, whose conversion lacks an argument."""

    def fails(self, frame):
        raise TypeError("reformat() got an unexpected keyword argument 'threads'")

    monkeypatch.setattr("ssvid.video.streams.FrameConverter.__call__", fails)
    found = doctor.examine()
    assert not found["decoders"]["pyav"]["works"]
    assert found["auto_decoder"] != "pyav"
    text = doctor.paragraph(found)
    assert "decodes nothing (TypeError: reformat() got an unexpected keyword argument 'threads')" in text
    assert "pip install 'av>=17.1,<20'" in text
    assert "warning: no video can be read here" in text
    assert "Nothing to fix" not in text


def test_a_decoder_that_decodes_wrongly_is_no_decoder(monkeypatch):
    from ssvid.video.streams import FrameConverter

    right = FrameConverter.__call__
    monkeypatch.setattr(FrameConverter, "__call__", lambda self, frame: right(self, frame) // 2)
    assert "decodes wrongly" in doctor.examine()["decoders"]["pyav"]["problem"]
