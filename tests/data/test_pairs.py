"""Videos in pairs: of one class, of one group, or any two; the same ones for any worker; and what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch

from pretext_tasks.temporal_cycle import PairClips, TemporalCycleConfig
from ssvid.data.feed.dataset import ClipDataset
from ssvid.data.feed.pairs import Pairs
from ssvid.data.manifest import VideoRow
from ssvid.errors import DataError
from ssvid.types import Stream, Ticket


def row(path, label="", group=""):
    return VideoRow(path, 20, 25.0, 36, 44, label=label, group=group)


ROWS = [
    row("a", "x", "1"),
    row("b", "y", "1"),
    row("c", "x", "2"),
    row("d", "x", "1"),
    row("e", "z", "3"),
    row("f", "y"),
]


def of(group_by, rows=ROWS, videos=None):
    return Pairs.of(rows, np.arange(len(rows)) if videos is None else np.array(videos), group_by)


@pytest.mark.parametrize(
    ("group_by", "kept"), [("label", [0, 1, 2, 3, 5]), ("group", [0, 1, 3]), ("any", [0, 1, 2, 3, 4, 5])]
)
def test_companions_are_of_the_same_class_or_group_and_of_another_video(group_by, kept):
    pairs = of(group_by)
    assert pairs.kept.tolist() == kept, "who is alone is left out"
    for index in range(len(kept)):
        seen = {pairs.companion(index, np.random.default_rng(seed)) for seed in range(60)}
        wanted = [i for i in range(len(kept)) if i != index]
        if group_by != "any":
            mine = getattr(ROWS[kept[index]], group_by)
            wanted = [i for i in wanted if getattr(ROWS[kept[i]], group_by) == mine]
        assert seen == set(wanted)


def test_every_companion_is_equally_likely():
    counts = Counter(of("any").companion(2, np.random.default_rng(seed)) for seed in range(5000))
    assert max(abs(count - 1000) for count in counts.values()) < 4 * 28.3


def test_pieces_of_one_video_are_no_pair():
    rows = [row("a", "x"), row("a", "x"), row("b", "x"), row("c", "y"), row("c", "y")]
    pairs = of("label", rows, [0, 0, 1, 2, 2])
    assert pairs.kept.tolist() == [0, 1, 2]
    assert {pairs.companion(0, np.random.default_rng(seed)) for seed in range(20)} == {2}


@pytest.mark.parametrize(
    ("group_by", "rows", "words"),
    [
        (
            "label",
            [row("a"), row("b")],
            r"needs two videos of one label: none of the 2 has a label\. Use class folders",
        ),
        ("label", [row("a", "x"), row("b", "y")], r"each label of the 2 has one alone \(x, y\)\..*group_by=any"),
        ("group", [row("a", "x"), row("b", "x")], r"task\.options\.group_by \(group\).*none of the 2 has a group"),
        ("any", [row("a", "x")], r"needs two videos: there is one, 'a'\. Add videos\."),
    ],
)
def test_where_no_two_videos_belong_together_that_is_refused(group_by, rows, words):
    with pytest.raises(DataError, match=words) as caught:
        of(group_by, rows)
    assert "\n" not in str(caught.value)


# ---- in the data set


@pytest.fixture
def dataset(manifest):
    options = TemporalCycleConfig(num_steps=4, context_frames=2, context_stride=1, frame_px=16, head="none")
    return ClipDataset(manifest, [r for r in manifest.rows if r.split == "train"], PairClips(options, True), seed=3)


def sources(dataset, ticket):
    (sample,) = dataset[(ticket,)]
    return sample["video_numbers"].tolist()


def test_both_videos_of_a_sample_are_of_one_class_and_other_ones_in_the_next_epoch(dataset):
    number = {int(video): row.label for video, row in zip(dataset.videos, dataset.rows, strict=True)}
    seen = set()
    for epoch in range(6):
        for index in (0, 7, 13):
            one, other = sources(dataset, Ticket(Stream.TRAIN, epoch, 0, index))
            assert one == dataset.videos[index] != other and number[one] == number[other]
            seen |= {other} if index == 0 else set()
    assert len(seen) > 2


def test_a_sample_follows_from_its_address_and_not_from_the_step(dataset):
    one, again = (dataset[(Ticket(Stream.TRAIN, 2, step, 5),)][0] for step in (0, 9))
    assert all(torch.equal(one[key], again[key]) for key in one if key not in ("tickets", "unreadable"))
    two = dataset[(Ticket(Stream.TRAIN, 2, 0, 5), Ticket(Stream.TRAIN, 2, 0, 5, 1))]
    assert two[0]["video_numbers"].tolist() == two[1]["video_numbers"].tolist() == one["video_numbers"].tolist()
    assert not torch.equal(two[0]["times_a"], two[1]["times_a"]), "other moments of the same two videos"


def test_validation_has_the_same_pairs_each_time(dataset):
    assert sources(dataset, Ticket(Stream.VAL, 0, 0, 4)) == sources(dataset, Ticket(Stream.VAL, 0, 3, 4))


def test_who_has_no_companion_is_left_out_and_listed(manifest):
    rows = [r for r in manifest.rows if r.split == "train" and r.label != "red"]
    rows.append(next(r for r in manifest.rows if r.label == "red"))
    options = TemporalCycleConfig(num_steps=4, context_frames=2, context_stride=1, frame_px=16, head="none")
    found = ClipDataset(manifest, rows, PairClips(options, True), seed=3)
    assert len(found) == len(rows) - 1 and [r.label for r in found.alone] == ["red"]
