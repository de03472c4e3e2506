"""From differences to words: what each counterfactual shows, and which cue explains most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ssvid.intervals import Interval

SLIGHT = 0.05  # a smaller share of what a network has above chance is told, and held against nobody
HALF = 0.5  # from this share of what a network has above chance on, it "is read from" a cue; below, it "leans on" it


class Finding(StrEnum):
    """What a row shows."""

    UNCHANGED = "unchanged"  # the counterfactual changes no clip of this task
    NO_SKILL = "no skill"  # there is nothing to explain
    NOT_SHOWN = "not shown"
    READ = "read from"
    LEANS = "leans on"
    HARDLY = "hardly"
    DAMAGED = "damaged by"  # by flicker, where the same quality without it costs nothing
    RISES = "rises"
    AT_CHANCE = "at chance"
    ABOVE_CHANCE = "above chance"


@dataclass(frozen=True)
class Words:
    """How a kind of counterfactual is spoken of. cue: what it takes away. under: follows a number ("after ...")."""

    cue: str
    under: str


WORDS: Mapping[str, Words] = {
    "static": Words("motion", "on static clips"),
    "noise": Words("the content of the video", "on noise without motion"),
    "shuffled": Words("the order of frames", "with the frames shuffled"),
    "duplicated": Words("the steps between frames", "with every second frame duplicated"),
    "irregular": Words("even spacing", "with irregular spacing"),
    "frame_rate": Words("the frame rate", "at another frame rate"),
    "shifted": Words("the place of things in the frame", "with each frame shifted by itself"),
    "foreign": Words("the video itself", "with all frames but the last from another video"),
    "reencoded": Words("compression", "after re-encoding"),
    "resized": Words("the finest detail", "after resizing"),
    "border": Words("the border", "with the border blackened"),
    "gray": Words("color", "on gray clips"),
    "channel_swapped": Words("the order of color channels", "with swapped channels"),
    "occluded": Words("one fixed place", "with one sixteenth of the frame covered"),
}
# No task has a use for these: they are held against a network whatever its task declares.
ARTIFACTS = ("occluded", "border", "reencoded")
# And none can answer these: nothing of the video is left, so that whoever is above chance reads how the task prepares it.
UNANSWERABLE = ("noise",)
# A cue takes others with it: a pixel in a corner goes with the border, and what is small goes with fine detail. Where
# several explain at least half, the first of these is named as the cause.
FROM_NARROW_TO_WIDE = ("occluded", "border", "reencoded", "resized")


@dataclass(frozen=True)
class AuditRow:
    """One counterfactual's line.

    name, value, place: of the counterfactual. measured, measured_interval: the metric on changed clips. difference,
    difference_interval: changed minus clean, paired. level: of the intervals. share_changed: of the clips.
    num_looks: counterfactuals of which this is the worst. declared: "must fall", "must hold" or "".
    finding, verdict: what it shows. held_against: whether it speaks against the network.
    """

    name: str
    value: str
    place: str
    measured: float
    measured_interval: Interval
    difference: float
    difference_interval: Interval
    level: float = 0.95
    share_changed: float = 1.0
    num_looks: int = 1
    declared: str = ""
    finding: Finding = Finding.NOT_SHOWN
    verdict: str = ""
    held_against: bool = False

    @property
    def label(self) -> str:
        """Name and value, and where it acts if that is not the video itself."""
        return f"{self.name} {self.value}".strip() + (" [clip]" if self.place == "clip" else "")


@dataclass(frozen=True)
class Standard:
    """What rows are judged by.

    task: its name in sentences. metric, chance: what is measured, and what a blind guess scores (None: not known).
    clean, clean_interval: the metric on clean clips. must_fall, must_hold: as the task declares.
    """

    task: str
    metric: str
    chance: float | None
    clean: float
    clean_interval: Interval
    must_fall: tuple[str, ...] = ()
    must_hold: tuple[str, ...] = ()

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share, to be told in percent and points."""
        return 0 <= self.clean <= 1 and (self.chance is None or 0 <= self.chance <= 1)

    @property
    def unit(self) -> str:
        """Of differences."""
        return "points" if self.is_share else "units"

    @property
    def has_skill(self) -> bool:
        """Whether the network is better than chance on clean clips."""
        return self.chance is None or self.clean_interval[0] > self.chance

    def declared(self, name: str) -> str:
        """What the task says of a kind of counterfactual."""
        return "must fall" if name in self.must_fall else "must hold" if name in self.must_hold else ""

    def share_of_skill(self, difference: float) -> float:
        """A fall as a share of what the network has above chance; 0 where chance is not known."""
        return -difference / (self.clean - self.chance) if self.chance is not None and self.has_skill else 0.0

    def number(self, value: float, digits: int = 1) -> str:
        """A value of the metric, in percent where it is a share."""
        return f"{100 * value:.{digits}f} %" if self.is_share else f"{value:.4g}"

    def points(self, difference: float) -> str:
        """The size of a difference: whole points, tenths below ten."""
        if not self.is_share:
            return f"{difference:.3g}"
        size = 100 * difference
        return f"{size:.0f}" if abs(size) >= 9.5 else f"{size:.1f}"

    def rise(self, row: AuditRow) -> str:
        """How much more a row has than clean clips, with its interval."""
        low, high = row.difference_interval
        return f"{self.points(row.difference)} {self.unit}, {self.points(low)} to {self.points(high)}"

    def fall(self, row: AuditRow) -> str:
        """The same the other way round."""
        low, high = row.difference_interval
        return f"{self.points(-row.difference)} {self.unit}, {self.points(-high)} to {self.points(-low)}"


def judge(row: AuditRow, standard: Standard) -> AuditRow:
    """The row with its finding in words."""
    declared = standard.declared(row.name)
    finding = _finding(row, standard, declared)
    must_not_read = declared == "must hold" or (row.name in ARTIFACTS and declared != "must fall")
    against = finding == Finding.ABOVE_CHANCE or (must_not_read and finding in (Finding.READ, Finding.LEANS))
    return replace(
        row, declared=declared, finding=finding, verdict=_sentence(row, finding, standard), held_against=against
    )


def judge_all(rows: Sequence[AuditRow], standard: Standard) -> list[AuditRow]:
    """Every row by itself, and then re-encodings of one quality together.

    Key frames alone (GOP 1) make a still scene flicker, as each is quantized by itself; a trace of compression does not care
    how many frames lie between two of them. So where the same quality with longer groups of pictures shows no fall, a fall
    with key frames alone is damage by flicker, and is told as such.
    """
    judged = [judge(row, standard) for row in rows]
    return [_tempered(row, judged, standard) for row in judged]


def _tempered(row: AuditRow, rows: Sequence[AuditRow], standard: Standard) -> AuditRow:
    quality, _, group = row.value.partition(", GOP ")
    if row.name != "reencoded" or group != "1" or row.finding not in (Finding.READ, Finding.LEANS):
        return row
    longer = [r for r in rows if (r.name, r.place) == (row.name, row.place) and r.value.partition(", ")[0] == quality]
    harmless = (Finding.NOT_SHOWN, Finding.RISES, Finding.HARDLY)
    other = next((r for r in longer if r.value != row.value and r.finding in harmless), None)
    if other is None:
        return row
    verdict = (
        f"{standard.task} is sensitive to key-frame flicker: {standard.metric} falls {standard.fall(row)}, at {row.value}; at {other.value} "
        f"{'the fall is negligible' if other.finding == Finding.HARDLY else 'no fall is shown'}, so it is image damage, not a "
        "compression cue"
    )
    return replace(row, finding=Finding.DAMAGED, verdict=verdict)


def _finding(row: AuditRow, standard: Standard, declared: str) -> Finding:
    if row.share_changed == 0:
        return Finding.UNCHANGED
    low, high = row.difference_interval
    if standard.chance is not None and (declared == "must fall" or row.name in UNANSWERABLE):
        above = row.measured_interval[0] > standard.chance
        return Finding.ABOVE_CHANCE if above else Finding.AT_CHANCE if standard.has_skill else Finding.NO_SKILL
    if not standard.has_skill:
        return Finding.NO_SKILL
    if low > 0:
        return Finding.RISES
    if high >= 0:
        return Finding.NOT_SHOWN
    if standard.chance is not None and standard.share_of_skill(row.difference) < SLIGHT:
        return Finding.HARDLY
    return Finding.READ if standard.share_of_skill(row.difference) >= HALF else Finding.LEANS


def _sentence(row: AuditRow, finding: Finding, standard: Standard) -> str:
    words = WORDS.get(row.name, Words(row.name, f"under {row.name}"))
    under = f"{words.under} ({row.value}{', of the clip' if row.place == 'clip' else ''})" if row.value else words.under
    if row.num_looks > 1:
        under += f", the worst of {row.num_looks}"
    task, metric = standard.task, standard.metric
    if finding == Finding.UNCHANGED:
        return f"does not apply: no clip of {task} is changed {under}"
    if finding == Finding.NO_SKILL:
        measured = f"{standard.number(row.measured)} {under}"
        return f"says nothing: {metric} is not above chance on clean clips ({measured})"
    if finding in (Finding.AT_CHANCE, Finding.ABOVE_CHANCE):
        return _of_chance(row, finding, standard, words, under)
    if finding == Finding.NOT_SHOWN:
        return f"not shown: {metric} moves {standard.rise(row)}, {under}"
    if finding == Finding.RISES:
        return f"{metric} rises {standard.rise(row)}, {under}"
    size = standard.fall(row)
    if finding == Finding.HARDLY:
        return f"negligible: {metric} falls {size}, {under}: less than a twentieth of what {task} has above chance"
    verb = "is read from" if finding == Finding.READ else "leans on"
    return f"{task} {verb} {words.cue}: {metric} falls {size}, {under}"


def _of_chance(row: AuditRow, finding: Finding, standard: Standard, words: Words, under: str) -> str:
    low, high = row.measured_interval
    numbers = f"{standard.metric} is {standard.number(row.measured)}, {standard.number(low)} to {standard.number(high)}"
    chance = standard.number(standard.chance or 0.0)
    if finding == Finding.AT_CHANCE:
        return f"at chance, as it must be: {numbers}, {under} (chance {chance})"
    return f"{standard.task} is answered without {words.cue}: {numbers}, {under} (chance {chance})"


def worst(rows: Sequence[AuditRow]) -> AuditRow:
    """Of several places that were covered one by one, the one whose loss is largest; it knows how many there were."""
    return replace(min(rows, key=lambda row: row.difference), num_looks=len(rows))


def conclusions(rows: Sequence[AuditRow], standard: Standard) -> list[str]:
    """What is held against the network, the likely cause first; one line that says so where nothing is.

    Of the counterfactuals that take half of its skill, the narrowest is the cause; the wider ones are said to follow.
    """
    if not standard.has_skill:
        low, high = standard.clean_interval
        numbers = f"{standard.number(standard.clean)}, {standard.number(low)} to {standard.number(high)}"
        chance = standard.number(standard.chance or 0.0)
        found = [row.verdict for row in rows if row.finding == Finding.ABOVE_CHANCE]
        return [
            f"{standard.metric} is not above chance on clean clips ({numbers}; chance {chance}): nothing to explain",
            *found,
        ]
    against = sorted((row for row in rows if row.held_against), key=_rank)
    if not against:
        return [f"nothing is held against {standard.task}: what it must not read was taken away, and no fall is shown"]
    cause = next((row for row in against if row.finding == Finding.READ and row.name in FROM_NARROW_TO_WIDE), None)
    return [row.verdict + _follows(row, cause) + _made_by_the_task(row, rows) for row in _one_per_kind(against)]


def _rank(row: AuditRow) -> tuple[bool, int, float]:
    """Half of the skill first; then the narrowest cue; then the largest fall."""
    narrow = FROM_NARROW_TO_WIDE.index(row.name) if row.name in FROM_NARROW_TO_WIDE else len(FROM_NARROW_TO_WIDE)
    return row.finding == Finding.LEANS, narrow, row.difference


def _one_per_kind(rows: Sequence[AuditRow]) -> list[AuditRow]:
    kept: dict[tuple[str, bool], AuditRow] = {}
    for row in rows:
        kept.setdefault((row.name, row.finding == Finding.ABOVE_CHANCE), row)
    return list(kept.values())


def _follows(row: AuditRow, cause: AuditRow | None) -> str:
    if cause is None or row.name == cause.name or row.name not in FROM_NARROW_TO_WIDE:
        return ""
    return f" (the same cue may be meant: {WORDS[cause.name].cue})"


def _made_by_the_task(row: AuditRow, rows: Sequence[AuditRow]) -> str:
    """Where the fall is shown on the clip alone, the videos do not hold the cue."""
    on_video = [other for other in rows if other.name == row.name and other.place == "video"]
    if row.place != "clip" or not on_video or any(o.finding in (Finding.READ, Finding.LEANS) for o in on_video):
        return ""
    return "; the videos themselves do not show it, so the task's own transform makes it"
