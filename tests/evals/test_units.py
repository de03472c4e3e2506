"""Numbers that are means over other things than videos, and numbers that are no means: rows, pairs, seeds, the file."""

from dataclasses import replace

import numpy as np
import pytest

from ssvid.data.manifest import Manifest, VideoRow
from ssvid.errors import DataError
from ssvid.evals.contract import Evaluation, LabeledData, Number, Subject, Tools, Units
from ssvid.evals.measuring import measure
from ssvid.intervals import RESAMPLED, grouped_mean_interval, pseudo_values
from ssvid.programs.evaluate import score
from ssvid.recipe.schema import EvaluationRecipe
from ssvid.results.rows import compare_rows, read_results, render_table, write_results
from ssvid.results.summaries import summarize, summarize_difference


class Became:
    unreadable, padded, decoders = (), (), {"pyav": 2}


class Objects(Evaluation):
    """Two objects in one video, one in the other; no label is needed."""

    needs = "maps"
    needs_labels = False
    values = (0.5, 0.25, 0.75)

    def score(self, subject, seen, data, config, tools):
        ids = ["a/1", "a/2", "b/1"]
        units = Units(ids, ["a", "a", "b"], "objects", "videos")
        yield Number("j", np.array(self.values), 0.1, seen=(Became(), Became()), units=units)
        spread = units._replace(interval=(-0.3, 0.4))
        yield Number("decay", np.array(self.values) - 0.6, 0.1, seen=(Became(), Became()), units=spread)

    def baselines(self, wanted, network, features, config, tools):
        return [Subject("nothing moves", network, features)]


@pytest.fixture
def data(tmp_path):
    rows = tuple(VideoRow(f"{name}.mp4", 10, 25.0, 8, 8, decoders_ok=("pyav",), content_id=name) for name in "ab")
    return LabeledData.checked(Manifest(tmp_path, rows), (), rows, labels=False)


def rows_of(data, backbone, *, seed=0, values=Objects.values, name="pretrained"):
    evaluation = Objects()
    evaluation.values = values
    rows = list(measure({evaluation: None}, Subject(name, backbone, None), None, data, Tools()))
    return [replace(row, context={**row.context, "seed": seed}) for row in rows]


def test_a_number_over_objects_is_read_back_and_said(data, backbone, tmp_path):
    rows = rows_of(data, backbone)
    assert (rows[0].value, rows[0].ids, rows[0].num_groups) == (0.5, ("a/1", "a/2", "b/1"), 2)
    assert rows[1].value == pytest.approx(-0.1) and rows[1].interval == (-0.3, 0.4)
    assert "3 objects in 2 videos; [..] is the 95 % interval over them" in render_table(rows)
    again = read_results(write_results(tmp_path, rows))
    for row, other in zip(rows, again, strict=True):
        np.testing.assert_array_equal(row.correct_N, other.correct_N)
        assert (row.value, row.interval, row.method, row.groups) == (
            other.value,
            other.interval,
            other.method,
            other.groups,
        )
    assert again[1].method == RESAMPLED != again[0].method


def test_pairs_and_seeds_of_numbers_of_any_size(data, backbone):
    mine, other = rows_of(data, backbone), rows_of(data, backbone, values=(0.1, 0.25, 0.7), name="placebo")
    found = compare_rows(mine[1], other[1])
    assert found.mean == pytest.approx(0.15) and found.num_groups == 2
    # Without either video the mean is .2 or .05: an error of .075, which Student's t multiplies by 12.7 with two videos.
    reach = 12.7062 * 0.075 / (1 - 0.15**2)
    assert found.interval == pytest.approx(np.tanh([np.arctanh(0.15) - reach, np.arctanh(0.15) + reach]), abs=1e-5)
    seeds = [*mine, *other, *rows_of(data, backbone, seed=1, values=(1.0, 0.25, 0.75))]
    (summary,) = [s for s in summarize(seeds) if (s.name, s.metric) == ("pretrained", "decay")]
    assert summary.method == RESAMPLED and summary.value == pytest.approx((-0.1 + 1 / 15) / 2)
    both = [*seeds, *rows_of(data, backbone, seed=1, values=(0.1, 0.25, 0.7), name="placebo")]
    difference = summarize_difference(both, "pretrained", "placebo", "decay")
    assert (
        difference.value == pytest.approx((0.15 + 0.95 / 3) / 2)
        and -1 <= difference.interval[0] <= difference.interval[1] <= 1
    )


def test_an_evaluation_without_labels_brings_its_own_baselines(data, backbone):
    class Asked(EvaluationRecipe):
        def asks(self):
            return {"objects": None}

    from ssvid.evals import contract

    contract.register_evaluation("objects")(Objects)
    try:
        rows = score(Asked(), {"pretrained": backbone}, backbone, data, Tools()).rows
    finally:
        del contract.evaluations._entries["objects"]
    assert list(dict.fromkeys(row.name for row in rows)) == ["pretrained", "random", "nothing moves"]
    assert rows[0].context["data"]["train"]["num_videos"] == 0


def test_nothing_to_score(tmp_path):
    with pytest.raises(DataError, match=r"there is no video to score.*data.test_split"):
        LabeledData.checked(Manifest(tmp_path, ()), (), (), labels=False)


def test_pseudo_values_of_a_mean_are_its_terms_and_have_the_mean_of_any_statistic():
    terms = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(pseudo_values(lambda at: float(terms[at].mean()), 7), terms, atol=1e-12)
    sums = np.abs(terms) + 1
    ratio = lambda at: float(terms[at].sum() / sums[at].sum())  # noqa: E731
    found = pseudo_values(ratio, 7)
    assert found.mean() == pytest.approx(ratio(np.arange(7)), abs=1e-12)
    residuals = (terms - ratio(np.arange(7)) * sums) / sums.mean()  # the influence of each term, to first order
    assert np.corrcoef(found, residuals)[0, 1] > 0.99
    np.testing.assert_array_equal(pseudo_values(ratio, 1), [ratio(np.array([0]))])


def test_one_video_says_nothing_of_others():
    assert grouped_mean_interval(np.array([0.2, 0.4]), groups_N=np.array(["a", "a"])) == (-1.0, 1.0)
    assert all(np.isnan(grouped_mean_interval(np.array([]))))


def test_the_interval_over_groups_is_as_wide_as_it_should_be():
    """30 groups of three alike: as wide as Student's interval of the 30 means, within a tenth."""
    means = np.random.default_rng(3).normal(0.1, 0.1, 30)
    low, high = grouped_mean_interval(np.repeat(means, 3), groups_N=np.repeat(np.arange(30), 3))
    half = 2.045 * means.std(ddof=1) / np.sqrt(30)
    assert (low, high) == pytest.approx((means.mean() - half, means.mean() + half), abs=half / 10)
