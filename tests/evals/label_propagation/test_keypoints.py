"""PCK: joints placed by hand, what is left out, and plain loops."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.evals.label_propagation.keypoints import count_keypoints, pck, person_sizes


def person(num_frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Three joints whose box is 60 by 80: its diagonal is 100, so that a fraction of .1 is 6 pixels."""
    joints = np.array([[10.0, 10.0], [70.0, 90.0], [40.0, 50.0]])
    return np.repeat(joints[None], num_frames, axis=0), np.ones((num_frames, 3), dtype=bool)


def test_sizes_of_persons():
    truth, visible = person()
    assert person_sizes(truth, visible).tolist() == pytest.approx([60.0] * 3)
    visible[1, 1] = False  # the box is that of what is visible: 30 by 40
    visible[2] = False
    truth[1, 1] = truth[2] = np.nan
    assert person_sizes(truth, visible).tolist() == pytest.approx([60.0, 30.0, 0.0])


@pytest.mark.parametrize(("distance", "expected"), [(0, 5), (5.9, 5), (6.0, 5), (6.1, 4), (18.0, 3), (30.1, 0)])
def test_a_joint_is_right_within_a_fraction_of_the_person(distance, expected):
    truth, visible = person()
    counts = count_keypoints(truth, truth + np.array([distance, 0.0]), visible)
    assert counts.total_J.tolist() == [2, 2, 2]  # frame 0 is given
    assert (counts.right_FJ[:, 0] == 2).sum() == expected
    assert pck([counts]).mean_F.tolist() == [0.0] * (5 - expected) + [1.0] * expected


def test_the_mean_is_over_joints_of_all_sequences_at_once():
    truth, visible = person(4)
    found = truth.copy()
    found[1:, 0] += 1000  # joint 0 is lost
    few = visible.copy()
    few[2:, 0] = False
    # Joint 0: wrong 1 time in this sequence, right 3 times in the other one. The rest is right.
    both = [count_keypoints(truth, found, few), count_keypoints(truth, truth, visible)]
    found_pck = pck(both)
    assert found_pck.joints_FJ[0].tolist() == [3 / 4, 1.0, 1.0]
    assert found_pck.mean_F[0] == pytest.approx((3 / 4 + 2) / 3)
    assert pck(both[:1]).mean_F[0] == pytest.approx(2 / 3)


def test_what_is_not_visible_is_not_scored_and_what_is_lost_is_wrong():
    truth, visible = person()
    visible[:, 2] = False
    found = truth.copy()
    found[1, 0] = np.nan
    counts = count_keypoints(truth, found, visible)
    assert counts.total_J.tolist() == [2, 2, 0]
    assert counts.right_FJ[0].tolist() == [1, 2, 0]
    scores = pck([counts])
    assert np.isnan(scores.joints_FJ[0, 2])
    assert scores.mean_F[0] == 0.75
    as_videowalk = count_keypoints(truth, found, visible & np.isfinite(found).all(axis=2))
    assert as_videowalk.total_J.tolist() == [1, 2, 0]
    later = count_keypoints(truth, truth, visible, given=1)
    assert later.total_J.tolist() == [1, 1, 0]


def test_one_visible_joint_has_no_size_to_be_right_within():
    truth, visible = person()
    visible[:, 1:] = False
    assert not count_keypoints(truth, truth, visible).right_FJ.any()


def test_pck_is_that_of_plain_loops():
    rng = np.random.default_rng(0)
    sequences = []
    for num_frames in (2, 5, 9):
        truth = rng.random((num_frames, 15, 2)) * 200
        sequences.append((truth, truth + rng.normal(0, 20, truth.shape), rng.random((num_frames, 15)) < 0.8))
    for fraction in (0.1, 0.3):
        shares = []
        for joint in range(15):
            hits = []
            for truth, found, visible in sequences:
                for frame in range(1, len(truth)):
                    if visible[frame, joint]:
                        seen = truth[frame][visible[frame]]
                        size = 0.6 * np.sqrt(((seen.max(axis=0) - seen.min(axis=0)) ** 2).sum())
                        hits.append(np.hypot(*(truth - found)[frame, joint]) <= fraction * size)
            shares.append(np.mean(hits))
        got = pck([count_keypoints(*one, fractions=(fraction,)) for one in sequences])
        assert got.joints_FJ[0] == pytest.approx(shares, abs=1e-12)
        assert got.mean_F[0] == pytest.approx(np.mean(shares), abs=1e-12)


def test_pck_is_the_same_at_another_size_of_the_video():
    rng = np.random.default_rng(1)
    truth = rng.random((6, 15, 2)) * 200
    found, visible = truth + rng.normal(0, 20, truth.shape), rng.random((6, 15)) < 0.8
    small = count_keypoints(truth, found, visible)
    assert small.right_FJ.any()
    large = count_keypoints(truth * 4 + 8, found * 4 + 8, visible)
    assert np.array_equal(small.right_FJ, large.right_FJ)


def test_wrong_input_is_told():
    truth, visible = person()
    with pytest.raises(DataError, match="do not fit"):
        count_keypoints(truth, truth[:2], visible)
    with pytest.raises(DataError, match="visible and has no place"):
        count_keypoints(truth * np.nan, truth, visible)
    with pytest.raises(DataError, match="no joint was scored"):
        pck([count_keypoints(truth[:1], truth[:1], visible[:1])])
