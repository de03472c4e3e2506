"""``ssvid diff``: every difference that was planted is told, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ssvid.cli import main
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.files import write_json
from ssvid.programs.diff import diff
from ssvid.recipe.yaml_text import to_yaml
from ssvid.results.rows import ResultRow, write_results
from ssvid.train.run_folder import RunFolder

from .test_cli import told

RECIPE = {"kind": "pretrain", "seed": 0, "optim": {"base_lr": 0.01, "epochs": 20}, "data": {"root": "videos"}}
ENV = {"python": "3.11.7", "cpu_cores": 2, "gpus": [], "packages": {"torch": "2.11.0"}}
ROWS = tuple(VideoRow(f"{i}.mp4", 40, 25.0, 48, 64, content_id=f"content{i}") for i in range(4))


def write_run(path, recipe=RECIPE, env=ENV, rows=ROWS, accuracy=0.75, complete=True):
    folder = RunFolder(path)
    folder.create()
    folder.resolved.write_text(to_yaml(recipe))
    write_json(folder.env, env)
    Manifest(path, rows).save(folder.manifest)
    lines = [
        {"step": 0, "epoch": 0, "train/loss": 0.9, "perf/clips_per_s": 99.0, "lr": 0.1},
        {"step": 7, "epoch": 1, "train/loss": 0.5, "perf/clips_per_s": 12.0, "lr": 0.2},
        {"step": 7, "epoch": 1, "val/accuracy": accuracy},
    ]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if complete:
        write_json(folder.results, {"metrics": {"accuracy": accuracy}})
    return path


def compared(capsys, first, second) -> dict:
    assert main(["diff", str(first), str(second), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_equal_runs_do_not_differ(tmp_path, capsys):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    told_ = compared(capsys, first, second)
    assert told_["same"] is True
    assert told_["recipe"] == told_["environment"] == told_["data"]["only_first"] == []
    assert told_["data"]["num_shared"] == 4
    assert told_["metrics"] == {
        "step": [7, 7], "epoch": [1, 1], "train/loss": [0.5, 0.5], "val/accuracy": [0.75, 0.75],
    }  # fmt: skip
    assert main(["diff", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("They do not differ.\n")
    assert "the same 4 videos" in out


def test_every_planted_difference_is_told(tmp_path, capsys):
    recipe = {**RECIPE, "optim": {"base_lr": 0.02, "epochs": 20}}
    env = {**ENV, "gpus": ["H100"], "packages": {"torch": "2.12.0"}}
    rows = (*ROWS[:2], replace(ROWS[2], content_id="other"), replace(ROWS[3], path="new.mp4"))
    first = write_run(tmp_path / "a")
    second = write_run(tmp_path / "b", recipe, env, rows, accuracy=0.5, complete=False)
    found = compared(capsys, first, second)
    assert found["same"] is False
    assert found["recipe"] == ["optim.base_lr: 0.01 -> 0.02"]
    assert found["environment"] == ["gpus: [] -> ['H100']", "packages.torch: '2.11.0' -> '2.12.0'"]
    data = found["data"]
    assert (data["only_first"], data["only_second"], data["changed_content"]) == (["3.mp4"], ["new.mp4"], ["2.mp4"])
    assert (data["same"], data["num_shared"]) == (False, 3)
    assert found["metrics"]["val/accuracy"] == [0.75, 0.5]
    assert [run["complete"] for run in found["runs"]] == [True, False]
    assert main(["diff", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    for line in (
        "b: pretraining run, not complete", "optim.base_lr: 0.01 -> 0.02", "packages.torch: '2.11.0' -> '2.12.0'",
        "a: 3.mp4", "b: new.mp4", "1 videos with other content: 2.mp4", "-0.25", "They differ.",
    ):  # fmt: skip
        assert line in out


def test_the_same_files_with_another_label_are_no_equal_data(tmp_path):
    rows = (replace(ROWS[0], label="walk"), *ROWS[1:])
    result = diff(write_run(tmp_path / "a"), write_run(tmp_path / "b", rows=rows))
    assert not result.same_data
    assert not result.is_same
    assert "the same 4 videos, with another label, split, window or order" in str(result)


def test_two_evaluations(tmp_path):
    def write(name, value, weights):
        correct = np.arange(4) < 4 * value
        context = {"manifest_sha256": "aa", "weights_sha256": weights * 32, "device": "cpu"}
        ids = tuple(row.path for row in ROWS)
        row = ResultRow("pretrained", "probe_top1", value, (0.0, 1.0), 0.1, correct, ids, context)
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, [row], extra={"recipe": {"kind": "probe", "seed": 0}})
        return tmp_path / name

    result = diff(write("a", 0.5, "01"), write("b", 0.75, "02"))
    assert result.first.kind == "evaluation"
    assert result.recipe == [f"weights.pretrained: {'01' * 8!r} -> {'02' * 8!r}"]
    assert result.metrics == {"pretrained: probe_top1": (0.5, 0.75)}
    assert result.same_data
    assert result.num_shared == 4
    assert "+0.25" in str(result)


@pytest.mark.parametrize("what", ["nothing", "empty", "damaged"])
def test_a_folder_that_is_no_run_is_a_mistake(tmp_path, capsys, what):
    run, other = write_run(tmp_path / "run"), tmp_path / "other"
    parts = {
        "nothing": f"{other} is no run: it is not a folder. Name a folder that ssvid pretrain wrote",
        "empty": f"{other} is no run: it has neither recipe.resolved.yaml nor results.json",
        "damaged": f"{other} cannot be compared: a file in it is damaged or of another ssvid (JSONDecodeError",
    }
    if what == "empty":
        other.mkdir()
    if what == "damaged":
        write_run(other)
        RunFolder(other).env.write_text("{")
    assert parts[what] in told(capsys, "diff", str(run), str(other))
