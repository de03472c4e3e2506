"""What is said, and what is held against a network, by hand-made rows."""

import pytest

from ssvid.audits.report import report_of, table
from ssvid.audits.verdicts import AuditRow, Standard, conclusions, judge, judge_all, worst

STANDARD = Standard("speed", "accuracy", 0.5, 0.85, (0.82, 0.88), ("static", "noise"), ("reencoded",))


def row(name, fall, low, high, value="", place="video", **more):
    """A row whose metric falls by so many points, with an interval in points."""
    return AuditRow(
        name, value, place, 0.85 - fall / 100, (0.85 - high / 100, 0.85 - low / 100), -fall / 100, (-high / 100, -low / 100),
        **more,
    )  # fmt: skip


def said(*rows, standard=STANDARD):
    return conclusions(judge_all(rows, standard), standard)


def test_a_broken_promise_is_told_in_points():
    judged = judge(row("reencoded", 31, 27, 35, "crf 36, GOP 1"), STANDARD)
    assert (
        judged.verdict
        == "speed is read from compression: accuracy falls 31 points, 27 to 35, after re-encoding (crf 36, GOP 1)"
    )
    assert (judged.finding, judged.declared, judged.held_against) == ("read from", "must hold", True)


@pytest.mark.parametrize(
    ("row", "finding", "words", "against"),
    [
        (row("reencoded", 6, 3, 9), "leans on", "speed leans on compression: accuracy falls 6.0 points, 3.0 to 9.0, after", True),
        (row("reencoded", 1, 0.5, 1.5), "hardly", "negligible: accuracy falls 1.0 points, 0.5 to 1.5, after re-encoding: less than a", False),
        (row("reencoded", 0.4, -0.8, 1.5), "not shown", "not shown: accuracy moves -0.4 points, -1.5 to 0.8, after", False),
        (row("reencoded", -4, -6, -2), "rises", "accuracy rises 4.0 points, 2.0 to 6.0, after re-encoding", False),
        (row("static", 35, 33, 37), "at chance", "at chance, as it must be: accuracy is 50.0 %, 48.0 % to 52.0 %, on static", False),
        (row("static", 4, 2, 6), "above chance", "speed is answered without motion: accuracy is 81.0 %, 79.0 % to 83.0 %", True),
        (row("shuffled", 30, 28, 32), "read from", "speed is read from the order of frames: accuracy falls 30 points", False),
        (row("occluded", 30, 28, 32), "read from", "speed is read from one fixed place: accuracy falls 30 points", True),
        (row("duplicated", 2, 1, 3), "leans on", "speed leans on the steps between frames: accuracy falls 2.0 points", False),
        (row("gray", 2, 1, 3), "leans on", "speed leans on color: accuracy falls 2.0 points, 1.0 to 3.0, on gray clips", False),
        (row("frame_rate", 0, 0, 0, share_changed=0.0), "unchanged", "does not apply: no clip of speed is changed", False),
    ],
)  # fmt: skip
def test_every_finding_has_its_sentence(row, finding, words, against):
    judged = judge(row, STANDARD)
    assert judged.verdict.startswith(words)
    assert (judged.finding, judged.held_against) == (finding, against)


def test_a_network_at_chance_has_nothing_to_explain():
    blind = Standard("order", "accuracy", 0.75, 0.76, (0.73, 0.79), ("static",), ("reencoded",))
    lines = said(row("reencoded", 3, 1, 5), row("static", 1, -1, 3), standard=blind)
    assert lines[0].startswith("accuracy is not above chance on clean clips (76.0 %, 73.0 % to 79.0 %; chance 75.0 %)")
    assert lines[1:] == [judge(row("static", 1, -1, 3), blind).verdict], (
        "static clips are answered: that is told all the same"
    )
    assert said(row("reencoded", 3, 1, 5), standard=blind) == lines[:1]
    assert judge(row("reencoded", 3, 1, 5), blind).finding == "no skill"
    assert not judge(row("reencoded", 3, 1, 5), blind).held_against


def test_nobody_can_answer_noise_whatever_is_declared():
    plain = Standard("halves", "accuracy", 0.5, 0.85, (0.82, 0.88))
    judged = judge(row("noise", 2, 0, 4), plain)
    assert judged.verdict.startswith("halves is answered without the content of the video: accuracy is 83.0 %")
    assert judged.held_against and not judge(row("noise", 35, 33, 37), plain).held_against


def test_nothing_against_it_is_said_too():
    lines = said(row("reencoded", 0, -1, 1), row("static", 35, 33, 37), row("shuffled", 20, 15, 25))
    assert len(lines) == 1 and lines[0].startswith("nothing is held against speed")


def test_the_narrowest_cue_is_the_cause_and_the_wider_ones_follow():
    spot = row("occluded", 34, 30, 37, "row 1, column 4 of 4", "clip")
    lines = said(row("reencoded", 33, 30, 36), row("border", 33, 30, 36), spot)
    assert [line.split(":")[0] for line in lines] == [
        "speed is read from one fixed place", "speed is read from the border", "speed is read from compression",
    ]  # fmt: skip
    assert all(line.endswith("(the same cue may be meant: one fixed place)") for line in lines[1:])


def test_half_of_the_skill_goes_before_a_part_of_it():
    lines = said(row("border", 5, 3, 7), row("reencoded", 30, 27, 33))
    assert lines[0].startswith("speed is read from compression")
    assert lines[1].startswith("speed leans on the border")


def test_what_falls_on_the_clip_alone_is_of_the_tasks_own_making():
    alone = said(row("border", 33, 30, 36, "1/32 wide", "clip"), row("border", 0, -1, 1, "1/32 wide"))
    assert len(alone) == 1 and alone[0].endswith("so the task's own transform makes it")
    assert "(1/32 wide, of the clip)" in alone[0]
    both = said(row("border", 33, 30, 36, place="clip"), row("border", 30, 27, 33))
    assert not both[0].endswith("makes it")


def test_what_a_task_declares_goes_before_what_no_task_should_read():
    color = Standard("colors", "gain", 0.0, 0.2, (0.15, 0.25), must_fall=("border",))
    judged = judge(AuditRow("border", "", "video", 0.0, (-0.01, 0.01), -0.2, (-0.21, -0.19)), color)
    assert (judged.finding, judged.held_against) == ("at chance", False)


def test_of_sixteen_cells_the_worst_is_told():
    cells = [row("occluded", fall, fall - 1, fall + 1, f"cell {fall}", "clip") for fall in (1, 30, 2)]
    told = judge(worst(cells), STANDARD)
    assert (told.value, told.num_looks) == ("cell 30", 3)
    assert told.verdict.endswith("(cell 30, of the clip), the worst of 3")
    report = report_of([row("gray", 0, -1, 1), *cells, row("noise", 35, 34, 36)], STANDARD, num_videos=9, num_clips=99)
    assert [r.name for r in report.rows] == ["gray", "occluded", "noise"]
    assert len(report.all_rows) == 5


def test_other_metrics_are_told_in_their_own_unit():
    standard = Standard("order", "margin", 0.0, 3.2, (3.0, 3.4))
    falls = judge(AuditRow("border", "", "video", 0.2, (0.1, 0.3), -3.0, (-3.1, -2.9)), standard)
    assert falls.verdict == "order is read from the border: margin falls 3 units, 2.9 to 3.1, with the border blackened"


def test_the_table_lines_up():
    rows = [judge(r, STANDARD) for r in (row("static", 35, 33, 37), row("reencoded", 31, 27, 35, "crf 36, GOP 1"))]
    lines = table(rows, STANDARD)
    assert lines[0].split() == ["counterfactual", "accuracy", "difference", "in", "points,", "95", "%", "declared"]
    assert lines[1].split() == ["static", "50.0", "%", "-35.0", "(-37.0", "to", "-33.0)", "must", "fall"]
    assert lines[2].endswith("must hold  <- held against it")
    assert lines[0].index("declared") == lines[1].index("must fall") == lines[2].index("must hold")


def test_flicker_of_key_frames_is_told_from_a_trace_of_compression():
    """A trace is gone whatever the distance of key frames; flicker comes with key frames alone."""
    mild = row("reencoded", 0.3, -0.8, 1.4, "crf 28, GOP 12")
    flicker, same = row("reencoded", 27, 26, 29, "crf 36, GOP 1"), row("reencoded", -3, -4.7, -1.5, "crf 36, GOP 12")
    judged = judge_all([mild, flicker, same], STANDARD)[1]
    assert (judged.finding, judged.held_against) == ("damaged by", True)
    assert judged.verdict == (
        "speed is sensitive to key-frame flicker: accuracy falls 27 points, 26 to 29, at crf 36, GOP 1; at crf 36, GOP 12 "
        "no fall is shown, so it is image damage, not a compression cue"
    )
    assert said(mild, flicker, same) == [judged.verdict]
    # A planted trace that only the harsh quality covers falls with both distances.
    read = row("reencoded", 24, 22, 26, "crf 36, GOP 12")
    assert said(mild, flicker, read)[0].startswith("speed is read from compression: accuracy falls 27 points")
    assert said(mild, flicker)[0].startswith("speed is read from compression"), "nothing to compare it with"
    # Damage explains nothing else away.
    lines = said(mild, flicker, same, row("border", 30, 28, 32))
    assert lines[0].startswith("speed is read from the border")
    assert not any("the same cue may be meant: compression" in line for line in lines)
