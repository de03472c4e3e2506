"""docs/add_an_evaluation.md followed to the letter: its package installed, its commands typed, its rows beside the baselines."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ssvid.results.rows import read_results

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "add_an_evaluation.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TYPED = """
import json, sys
from ssvid.cli import main
from ssvid.evals.contract import evaluations

for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
assert "nearest_class_mean" in evaluations.names() and not evaluations.broken, evaluations.broken
assert main(json.loads(sys.argv[2])) == 2
"""


def written(language: str) -> str:
    return next(text for name, text in FENCE.findall(PAGE) if name == language)


@pytest.fixture(scope="module")
def typed(tmp_path_factory, pip_install, python_with):
    """What the commands of the page print, and the folder that they leave."""
    project = tmp_path_factory.mktemp("evaluation")
    (project / "my_evaluations").mkdir()
    (project / "my_evaluations" / "__init__.py").touch()
    (project / "my_evaluations" / "class_means.py").write_text(written("python"), encoding="utf-8")
    (project / "pyproject.toml").write_text(written("toml"), encoding="utf-8")
    (project / "means.yaml").write_text(written("yaml"), encoding="utf-8")
    pip_install(project, project / "site")
    commands = [shlex.split(line)[1:] for line in written("bash").splitlines()]
    assert [words[0] for words in commands] == ["data", "evaluate", "report", "evaluate"]
    quick = ["data.index_workers=1", "features.workers=0", "--device", "cpu"]
    commands[1] += quick
    wrong = [*commands[1], "evaluation.options.distance=manhattan"]
    done = python_with(project / "site", TYPED, project, json.dumps(commands), json.dumps(wrong))
    assert done.returncode == 0, done.stderr
    return project, done


def test_its_rows_stand_beside_all_baselines_and_the_better_random_form_is_chosen_on_train(typed):
    rows = read_results(typed[0] / "means" / "results.json")
    names = [row.name for row in rows]
    assert names[0] == "random" and names[1] in ("random, initial", "random, calibrated")
    assert names[2:] == ["single frame", "shuffled frames", "histograms"]
    assert {row.metric for row in rows} == {"class_mean_top1"}
    choice = rows[0].context["better_form"]
    assert choice["heldout_top1"][choice["form"]] == max(choice["heldout_top1"].values())
    for row in rows:
        assert row.context["options"] == {"distance": "cosine"}
        assert row.context["leak"]["same_content_in_train_and_test"] == 0
        assert len(row.context["predictions"]) == len(row.ids) == 12
        assert row.value == row.correct_N.mean() and row.interval[0] <= row.value <= row.interval[1]
    plain = json.loads((typed[0] / "means" / "results.json").read_text())
    assert (plain["kind"], plain["recipe"]["evaluation"]["name"]) == ("evaluate", "nearest_class_mean")


def test_its_title_heads_the_tables_and_its_number_repeats(typed):
    out = typed[1].stdout
    for word in ("nearest class mean", "random", "single frame", "shuffled frames", "histograms"):
        assert out.count(word) >= 3, f"{word}: in the table, the report, and the table again"
    assert "repeated: all 5 numbers" in " ".join(out.split())


def test_a_wrong_option_is_told_with_its_key_and_its_legal_values(typed):
    told = " ".join(typed[1].stderr.split())
    assert "evaluation.options.distance ('manhattan') must be one of cosine, euclidean" in told
