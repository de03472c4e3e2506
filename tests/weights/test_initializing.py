"""init_from: where weights may come from, what is undone and said, what is refused, what is remembered."""

from __future__ import annotations

import argparse
import collections
import datetime
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from ssvid.backbones import Backbone, initialize_backbone
from ssvid.errors import CheckpointError
from ssvid.exports import export, initialize, load_backbone
from ssvid.weights.checkpoints import weights_sha256
from tests.weights.test_checkpoints import content_of

State = dict[str, Tensor]
Put = Callable[[str, str], State]


def tiny(seed: int = 1) -> Backbone:
    return initialize_backbone("tiny3d", {"width": 2}, seed=seed).eval()


@pytest.fixture(scope="module")
def weights() -> State:
    """Those of the network that every test here expects to find again."""
    return dict(tiny(seed=5).state_dict())


def same(backbone: Backbone, state: State) -> bool:
    return weights_sha256(backbone.state_dict()) == weights_sha256(state)


# ---- torchvision -----------------------------------------------------------------------------------------------------


def test_torchvisions_weights_give_torchvisions_vectors(hub_cache: Put) -> None:
    import torchvision

    state = hub_cache("video.r3d_18", "KINETICS400_V1")
    backbone = initialize_backbone("r3d_18").eval()
    report = initialize(backbone, "torchvision:DEFAULT")
    assert report.label == "torchvision:r3d_18.KINETICS400_V1", "an alias is resolved"
    assert report.heads == ("fc.weight", "fc.bias")
    assert len(report.matched) == len(state) - 2
    assert report.fits
    assert report.unknown_videos
    theirs = torchvision.models.video.r3d_18(weights=None)
    theirs.load_state_dict(state)
    theirs.fc = torch.nn.Identity()
    clip = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs.eval()(backbone.normalize(clip))
        torch.testing.assert_close(backbone.embed(clip), expected, atol=1e-5, rtol=0)


def test_the_table_names_every_group(hub_cache: Put) -> None:
    hub_cache("video.r3d_18", "KINETICS400_V1")
    lines = str(initialize(initialize_backbone("r3d_18"), "torchvision:KINETICS400_V1")).splitlines()
    assert lines[0].startswith("taken from torchvision:r3d_18.KINETICS400_V1, weights ")
    assert lines[1:] == [
        "  matched     120  stem 6, layer1 24, layer2 30, layer3 30, layer4 30",
        "  inflated      0",
        "  averaged      0",
        "  counters      0",
        "  heads         2  fc.weight, fc.bias (dropped)",
        "  missing       0",
        "  unexpected    0",
        "  mismatched    0",
        "  which videos these weights have seen is not known",
    ]


def test_without_network_and_cache_the_way_out_is_named(hub_cache: Put, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        initialize(initialize_backbone("r3d_18"), "torchvision:KINETICS400_V1")
    for words in ("no route to host", "r3d_18-b3b3357e.pth", str(tmp_path / "torch")):
        assert words in str(caught.value)


def test_a_damaged_file_in_the_cache(hub_cache: Put, tmp_path: Path) -> None:
    hub_cache("video.r3d_18", "KINETICS400_V1")
    path = next((tmp_path / "torch" / "hub" / "checkpoints").iterdir())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"are damaged .*Remove .*r3d_18-"):
        initialize(initialize_backbone("r3d_18"), "torchvision:KINETICS400_V1")


def test_names_that_torchvision_does_not_know() -> None:
    with pytest.raises(CheckpointError, match=r"no weights 'KINETICS400'.*Did you mean 'KINETICS400_V1'"):
        initialize(initialize_backbone("r3d_18"), "torchvision:KINETICS400")
    with pytest.raises(CheckpointError, match="torchvision has no network like 'tiny3d'"):
        initialize(tiny(), "torchvision:DEFAULT")


# ---- 2D weights ------------------------------------------------------------------------------------------------------


def test_an_inflated_network_takes_the_2d_weights_and_a_still_clip_gives_the_pictures_map(hub_cache: Put) -> None:
    state = hub_cache("resnet18", "IMAGENET1K_V1")
    video, picture = initialize_backbone("i3d_resnet18").eval(), initialize_backbone("resnet18").eval()
    report = initialize(video, "torchvision:IMAGENET1K_V1")
    assert report.heads == ("fc.weight", "fc.bias")
    assert set(report.inflated) == {key for key, value in state.items() if value.ndim == 4}
    assert "  inflated     20  conv1 1, layer1 4, layer2 5, layer3 5, layer4 5" in str(report)
    assert not initialize(picture, "torchvision:IMAGENET1K_V1").inflated
    clip = torch.rand(1, 3, 1, 64, 64).expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        expected = picture(clip[:, :, :1]).expand(-1, -1, 2, -1, -1)
        torch.testing.assert_close(video(clip), expected, atol=1e-4, rtol=1e-4)


def test_2d_kernels_are_inflated_only_when_asked(tmp_path: Path, weights: State) -> None:
    flat = {key: value.sum(2) if value.ndim == 5 else value for key, value in weights.items()}
    kernels = [key for key, value in weights.items() if value.ndim == 5]
    torch.save(flat, tmp_path / "flat.pth")
    with pytest.raises(
        CheckpointError, match=rf"{len(kernels)} mismatched.*{len(kernels)} 2D kernels.*init_inflate=true"
    ):
        initialize(tiny(), tmp_path / "flat.pth")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "flat.pth", inflate=True)
    assert report.inflated == tuple(kernels)
    for key in kernels:
        value = backbone.state_dict()[key]
        torch.testing.assert_close(value.sum(2), flat[key])
        assert torch.equal(value, value[:, :, :1].expand_as(value))


# ---- files of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "undone"),
    [
        (lambda s: s, []),
        (lambda s: {"state_dict": s, "epoch": 3}, ["took key 'state_dict', left epoch"]),
        (lambda s: {"model": s}, ["took key 'model'"]),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, ["cut prefix 'module.' from 24 keys"]),
        (
            lambda s: {"model": {f"module.encoder.{k}": v for k, v in s.items()}, "optimizer": {"state": {}}},
            ["took key 'model', left optimizer", "cut prefix 'module.encoder.' from 24 keys"],
        ),
        (lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, []),
        (
            lambda s: {f"backbone.{k}": v for k, v in s.items()} | {"cls_head.fc_cls.weight": torch.ones(3, 2)},
            ["cut prefix 'backbone.' from 24 keys"],
        ),
    ],
)
def test_wrappings_are_undone_and_named(tmp_path: Path, weights: State, wrap: Any, undone: list[str]) -> None:
    torch.save(wrap(weights), tmp_path / "theirs.pth")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "theirs.pth")
    assert list(report.undone) == undone
    assert all(text in str(report) for text in undone)
    assert report.label == "file theirs.pth"
    assert report.fits
    assert same(backbone, weights)
    assert report.heads in ((), ("cls_head.fc_cls.weight",))


def test_safetensors_of_others(tmp_path: Path, weights: State) -> None:
    save_file({f"module.{key}": value for key, value in weights.items()}, tmp_path / "theirs.safetensors")
    backbone = tiny()
    assert initialize(backbone, tmp_path / "theirs.safetensors").sha256 == weights_sha256(weights)
    assert same(backbone, weights)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "theirs.safetensors").read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="missing or damaged"):
        initialize(tiny(), tmp_path / "cut.safetensors")


def twice(state: State, first: str, second: str) -> State:
    """The network under two prefixes, with other values in the second."""
    return {first + k: v for k, v in state.items()} | {second + k: v + 1 for k, v in state.items()}


HEADS = {
    "projector.0.weight": torch.ones(8, 4),
    "predictor.3.bias": torch.ones(8),
    "prototypes.weight": torch.ones(3, 8),
    "queue": torch.ones(8, 16),
    "queue_ptr": torch.zeros(1, dtype=torch.long),
}


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "backbone.", "model.", "_orig_mod.", "module.backbone.", "encoder_q.", "encoder_q.0."),
        *("module.encoder_k.", "online_network.", "target_network.", "student.backbone.", "teacher.", "tower."),
    ],
)
def test_heads_beside_a_whole_network_are_named_and_dropped(tmp_path: Path, weights: State, prefix: str) -> None:
    torch.save({"state_dict": {prefix + k: v for k, v in weights.items()} | HEADS}, tmp_path / "theirs.pth")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "theirs.pth")
    assert same(backbone, weights)
    assert report.heads == tuple(HEADS)
    assert report.fits
    assert not report.is_partial
    assert "heads         5  projector.0.weight, predictor.3.bias" in str(report)
    assert not prefix or f"cut prefix {prefix!r} from 24 keys" in str(report)


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("stage4.3.weight", "a layer more in one of its children"),
        ("stage5.0.weight", "a child more of the same name"),
    ],
)
def test_keys_of_a_deeper_network_are_no_heads(tmp_path: Path, weights: State, extra: str, what: str) -> None:
    torch.save(weights | {extra: torch.ones(2)}, tmp_path / "deeper.pth")
    with pytest.raises(CheckpointError, match=rf"1 unexpected.*Unexpected: {extra}"):
        initialize(tiny(), tmp_path / "deeper.pth")
    assert initialize(tiny(), tmp_path / "deeper.pth", partial=True).is_partial, what


@pytest.mark.parametrize(
    ("wrap", "first", "second"),
    [
        (lambda s: {"state_dict": twice(s, "module.encoder_q.", "module.encoder_k.")}, "encoder_q", "encoder_k"),
        (lambda s: {"state_dict": twice(s, "encoder_q.0.", "encoder_k.0.") | HEADS}, "encoder_q", "encoder_k"),
        (lambda s: twice(s, "online_network.", "target_network."), "online_network", "target_network"),
        (lambda s: {"model": twice(s, "backbone.", "backbone_momentum.")}, "backbone", "backbone_momentum"),
        (
            lambda s: {
                "student": {f"module.backbone.{k}": v for k, v in s.items()}
                | {"module.head.mlp.weight": torch.ones(2)},
                "teacher": {f"backbone.{k}": v + 1 for k, v in s.items()},
                "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
            },
            "student",
            "teacher",
        ),
        (
            lambda s: {"state_dict": s, "state_dict_ema": {k: v + 1 for k, v in s.items()}},
            "state_dict",
            "state_dict_ema",
        ),
        (lambda s: twice(s, "", "ema."), ".", "ema"),
        (lambda s: {"a": {"b": s}, "c": {"b": {k: v + 1 for k, v in s.items()}}}, "a", "c"),
    ],
)
def test_one_of_two_networks_is_chosen_by_a_word(
    tmp_path: Path, weights: State, wrap: Any, first: str, second: str
) -> None:
    path = tmp_path / "theirs.pth"
    torch.save(wrap(weights), path)
    with pytest.raises(CheckpointError, match=rf"2 times.*Say which: init_which={first} or init_which={second}\."):
        initialize(tiny(), path)
    for word, expected in ((first, weights), (second, {k: v + 1 for k, v in weights.items()})):
        backbone = tiny()
        report = initialize(backbone, path, which=word)
        assert same(backbone, expected)
        assert report.fits
    with pytest.raises(CheckpointError, match="'encoder_x' names none of the networks"):
        initialize(tiny(), path, which="encoder_x")


def test_a_whole_network_is_taken_before_one_of_another_depth(tmp_path: Path, weights: State) -> None:
    deeper = {f"teacher.{k}": v + 1 for k, v in weights.items()} | {"teacher.stage4.3.weight": torch.ones(2)}
    torch.save({f"student.{k}": v for k, v in weights.items()} | deeper, tmp_path / "theirs.pth")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "theirs.pth")
    assert same(backbone, weights)
    assert "left the network under 'teacher.'" in str(report)


@pytest.mark.parametrize("prefix", ["", "encoder_q.", "module.encoder."])
def test_numbered_parts_are_named_where_the_order_is_exact(tmp_path: Path, weights: State, prefix: str) -> None:
    children = list(dict.fromkeys(key.partition(".")[0] for key in weights))
    numbers = {child: str(2 * place) for place, child in enumerate(children)}  # as if activations lay between
    state = {f"{prefix}{numbers[k.partition('.')[0]]}.{k.partition('.')[2]}": v for k, v in weights.items()}
    torch.save(state | {f"{prefix}99.weight": torch.ones(3, 2)}, tmp_path / "theirs.pth")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "theirs.pth")
    assert same(backbone, weights)
    assert report.heads == ("99.weight",)
    assert "named its parts in order: 0 stage1, 2 stage2" in str(report)
    state[f"{prefix}2.0.weight"] = torch.ones(2)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="0 matched"):
        initialize(tiny(), tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        ({"epoch": 3, "args": {"lr": 0.1}}, ["holds no weights", "epoch (no tensor), args (no tensor)"]),
        (lambda s: {f"tower.{k}": v for k, v in list(s.items())[:20]}, ["prefix 'tower.'", "init_which=tower"]),
        (lambda s: {k: v for k, v in s.items() if k != "stage1.0.weight"}, ["1 missing", "Missing: stage1.0.weight"]),
        (lambda s: s | {"stage1.0.weight": torch.ones(2)}, ["1 mismatched", "init_partial=true"]),
        (lambda s: {"a.weight": torch.ones(2)}, ["0 matched"]),
        (lambda s: s | {"stage1.0.weight": torch.ones(1).expand(s["stage1.0.weight"].shape)}, ["1 missing"]),
        (lambda s: s | {"stage1.0.weight": s["stage1.0.weight"].to_sparse()}, ["1 missing"]),
    ],
)
def test_what_cannot_be_known_is_refused(tmp_path: Path, weights: State, wrap: Any, words: list[str]) -> None:
    torch.save(wrap(weights) if callable(wrap) else wrap, tmp_path / "theirs.pth")
    backbone = tiny()
    before = weights_sha256(backbone.state_dict())
    with pytest.raises(CheckpointError) as caught:
        initialize(backbone, tmp_path / "theirs.pth")
    for text in words:
        assert text in str(caught.value)
    assert weights_sha256(backbone.state_dict()) == before, "a refused start changes nothing"


def test_a_part_is_taken_when_asked_and_said(tmp_path: Path, weights: State) -> None:
    torch.save({k: v for k, v in weights.items() if not k.startswith("stage4")}, tmp_path / "less.pth")
    backbone, fresh = tiny(), tiny()
    report = initialize(backbone, tmp_path / "less.pth", partial=True)
    assert report.is_partial
    assert "PARTIAL" in str(report)
    plain = report.as_dict()
    assert plain["partial"] is True
    assert plain["counts"]["matched"] == 18
    assert plain["keys"]["missing"] == [k for k in weights if k.startswith("stage4") and "num_batches" not in k]
    assert torch.equal(backbone.state_dict()["stage1.0.weight"], weights["stage1.0.weight"])
    assert torch.equal(backbone.state_dict()["stage4.0.weight"], fresh.state_dict()["stage4.0.weight"])
    torch.save({"nothing.weight": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="0 matched"):
        initialize(tiny(), tmp_path / "none.pth", partial=True)


class Company:
    """An object of a program that is not here."""

    def __init__(self) -> None:
        self.nested = [{"number": np.float32(2)}]


class Settings(dict[str, Any]):
    """A dict with a class of its own, such as Lightning's AttributeDict."""


class Names(list[str]):
    """A list with a class of its own."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("company", "name"),
    [
        (np.float64(71.2), "numpy"),
        (np.arange(3), "numpy"),
        (argparse.Namespace(lr=0.1, out=Path("runs")), "argparse.Namespace"),
        ({"deep": [(datetime.timedelta(1),)]}, "datetime.timedelta"),
        (Path("a"), "pathlib"),
        (OmegaConf.create({"model": {"widths": [1, 2]}}), "omegaconf.dictconfig.DictConfig"),
        (Settings(lr=0.1), ""),
        (Names(["a"]), ""),
        (collections.defaultdict(list, a=[1]), ""),
        (Company(), "Company"),
    ],
)
def test_objects_beside_the_weights_are_named_and_left(
    tmp_path: Path, weights: State, company: Any, name: str, zipped: bool
) -> None:
    path = tmp_path / "theirs.pth"
    torch.save({"model": weights, "extra": company}, path, _use_new_zipfile_serialization=zipped)
    backbone = tiny()
    report = initialize(backbone, path)
    assert same(backbone, weights)
    assert f"left extra{f' ({name}' if name and name != 'Company' and 'numpy' not in name else ''}" in report.undone[0]
    assert name in report.undone[0]


def test_weights_inside_a_foreign_object_are_said_to_be_there(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2), "best": np.float64(1)}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError) as caught:
        initialize(tiny(), tmp_path / "theirs.pth")
    for words in ("model (torch.nn.modules.linear.Linear)", "best (numpy", "save torch.save(network.state_dict()"):
        assert words in str(caught.value)


def test_a_dict_that_holds_itself_is_read_once(tmp_path: Path, weights: State) -> None:
    content: dict[str, Any] = {"model": weights}
    content["self"] = content
    torch.save(content, tmp_path / "theirs.pth")
    backbone = tiny()
    initialize(backbone, tmp_path / "theirs.pth")
    assert same(backbone, weights)


class Canary:
    """Makes a folder when it is unpickled with a loader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.path,)


def test_a_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Canary(tmp_path / "ran")}))
    with pytest.raises(CheckpointError, match=r"is refused|cannot be read"):
        initialize(tiny(), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def make_folder(path: str) -> None:
    """What the object below calls when it is unpickled with a loader that runs code."""
    Path(path).mkdir()


class Caller(Canary):
    """A canary of a function that torch does not block by itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return make_folder, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_beside_the_weights_never_runs(tmp_path: Path, weights: State, zipped: bool) -> None:
    content = {"model": weights, "extra": Caller(tmp_path / "ran")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    backbone = tiny()
    assert (
        "left extra (tests.weights.test_initializing.make_folder)"
        in initialize(backbone, tmp_path / "evil.pth").undone[0]
    )
    assert same(backbone, weights)
    assert not (tmp_path / "ran").exists()


# ---- weights of ours -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_ours_hands_on_what_it_saw(tmp_path: Path, weights: State) -> None:
    source = tiny(seed=5)
    torch.save(content_of(source), tmp_path / "last.ckpt")
    backbone = tiny()
    report = initialize(backbone, tmp_path / "last.ckpt")
    assert same(backbone, weights)
    assert report.label == "checkpoint"
    assert report.content_ids == ("v1", "v2", "v3")
    assert not report.unknown_videos
    assert report.as_dict()["origin"]["task"]["name"] == "speediness"
    assert str(tmp_path) not in str(report.as_dict()), "a path may tell a name"


def test_what_is_not_known_of_a_start_stays_unknown_through_the_next(tmp_path: Path, weights: State) -> None:
    torch.save(weights, tmp_path / "theirs.pth")
    first = initialize(tiny(), tmp_path / "theirs.pth").as_dict()
    assert first["unknown_videos"]
    assert first["num_videos"] is None
    torch.save(content_of(tiny(), start=first | {"partial": True}), tmp_path / "second.ckpt")
    second = initialize(tiny(), tmp_path / "second.ckpt")
    assert second.unknown_videos
    assert second.content_ids == ("v1", "v2", "v3")
    assert second.is_partial, "a partial start further back is still one"
    assert second.origin["init"]["from"] == "file theirs.pth"
    loaded = load_backbone(tmp_path / "second.ckpt")
    assert loaded.provenance["partial"] is True
    assert loaded.provenance["init"]["from"] == "file theirs.pth"


def test_load_backbone_points_to_the_ways_for_foreign_weights(tmp_path: Path, weights: State) -> None:
    torch.save(weights, tmp_path / "theirs.pth")
    save_file(weights, tmp_path / "theirs.safetensors")
    for name in ("theirs.pth", "theirs.safetensors"):
        with pytest.raises(CheckpointError, match=rf"init_from=.*{name}.*ssvid export .*--backbone-name"):
            load_backbone(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"ssvid export torchvision:KINETICS400_V1 OUT --backbone-name"):
        load_backbone("torchvision:KINETICS400_V1")


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        (["random", "pretrained", "single-frame"], r"\(3 runs lie below it\): .*tuned/pretrained"),
        (["fold1-seed0/random", "fold1-seed0/pretrained"], r"\(2 runs lie below it\): .*tuned/fold1-seed0/pretrained"),
        (["mine"], r"Name a run that lies below it: .*tuned/mine"),
        ([], r"Name an exported folder, a run folder, or a checkpoint file\.$"),
    ],
)
def test_the_folder_of_a_fine_tuning_names_the_run_of_its_network(tmp_path: Path, runs: list[str], named: str) -> None:
    (tmp_path / "tuned").mkdir()
    for run in runs:
        (tmp_path / "tuned" / run / "checkpoints").mkdir(parents=True)
        (tmp_path / "tuned" / run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(CheckpointError, match=named):
        export(tmp_path / "tuned", tmp_path / "out")
