"""What a terminal shows of a run, rendered at several widths, and what a log gets."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from ssvid.train.progress import ShowProgress, metrics_text

CHANCE = {"accuracy": 0.5, "auc": 0.5, "difference_auc": 0.5}
VALUES = {
    "train/loss": 0.65862,
    "train/accuracy": 0.562,
    "val/accuracy": 0.643,
    "val/auc": 0.71,
    "val/difference_auc": 0.6,
    "val_ood/accuracy": 0.51,
}


class Trainer(SimpleNamespace):
    """The numbers that a trainer gives, in the middle of a long run."""

    current_epoch, max_epochs, global_step = 2, 20, 10400
    estimated_stepping_batches, accumulate_grad_batches = 123456, 1
    callback_metrics = VALUES
    loggers = ()
    sanity_checking = False


def shown(width, *, steps=3):
    """The screen's text after some steps, a validation and more steps; and the line of the bar alone."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False, color_system=None)
    show, trainer = ShowProgress(CHANCE, 4, every_steps=1, console=console), Trainer()
    show.on_train_start(trainer, None)
    for step in range(steps):
        show.on_train_batch_start(trainer, None, {}, step)
        show.on_train_batch_end(trainer, None, None, {}, step)
    show.on_validation_end(trainer, None)
    show.on_train_epoch_end(trainer, None)
    show.on_train_batch_start(trainer, None, {}, steps)
    show.on_train_batch_end(trainer, None, None, {}, steps)
    bar = show._bar
    show.on_train_end(trainer, None)
    with console.capture() as captured:
        console.print(bar.get_renderable())
    return console.file.getvalue(), captured.get().rstrip("\n")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_bar_steps_speed_waiting_and_time_left_stay_visible_after_a_validation(width):
    _, line = shown(width)
    assert len(line) <= width
    assert "\n" not in line
    assert "…" not in line
    for part in ("━", "10400/123456", "loss 0.6586", "clips/s", "waiting ", "%", ":"):
        assert part in line, (part, line)
    assert line.index("10400") > 12  # the bar


def test_a_narrow_terminal_keeps_the_numbers():
    _, line = shown(66)
    assert "…" not in line
    assert "10400/123456" in line
    assert "waiting" in line


@pytest.mark.parametrize("width", [80, 200])
def test_the_metrics_of_an_epoch_stand_in_lines_of_their_own(width):
    screen, _ = shown(width)
    text = " ".join(screen.split())
    assert "epoch 3/20: accuracy train 0.562 val 0.643 val_ood 0.510 (chance 0.50) auc val 0.710 (chance 0.50)" in text


def test_a_log_gets_short_lines_and_the_metrics_once_an_epoch(capsys):
    show, trainer = ShowProgress(CHANCE, 4, every_steps=1), Trainer()
    show.on_train_start(trainer, None)
    show.on_train_batch_end(trainer, None, None, {}, 0)
    show.on_train_epoch_end(trainer, None)  # no validation: its old numbers are not told again
    steps, epoch = capsys.readouterr().err.splitlines()
    assert steps.startswith("epoch 3/20 step 10400/123456  loss 0.6586  ")
    assert "clips/s  waiting for data" in steps
    assert steps.endswith(" left")
    assert epoch == "epoch 3/20: accuracy train 0.562 (chance 0.50)"


def test_metrics_stand_beside_chance():
    assert metrics_text(VALUES, {"accuracy": 0.5}, ("train", "val")) == "accuracy train 0.562 val 0.643 (chance 0.50)"
    assert metrics_text({}, CHANCE, ("train", "val")) == ""
