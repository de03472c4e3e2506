"""Ctrl-C in the middle of a run."""

import signal

import pytest
import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader

import ssvid
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.train.trainer import fit

RECIPE = {
    "kind": "pretrain",
    "data": {"name": "manifest", "root": "???", "val_fraction": 0},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False},
}


class Press(pl.Callback):
    """Somebody presses Ctrl-C in the third step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            raise KeyboardInterrupt


class Smallest(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch):
        raise KeyboardInterrupt

    def configure_optimizers(self):
        return None


class Numbers(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader([0.0])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_ctrl_c_is_a_keyboard_interrupt_and_the_next_one_still_works():
    before = signal.getsignal(signal.SIGINT)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, Smallest(), Numbers(), None)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_pretraining_says_how_to_go_on(video_folder, tmp_path):
    rows = [VideoRow(f"{i:02d}.mp4", 40 + i % 3, 25.0, 48, 64, decoders_ok=("pyav",)) for i in range(12)]
    Manifest(video_folder, tuple(rows)).save(tmp_path / "table.csv")  # so that nothing has to be scanned
    table = f"data.list={tmp_path / 'table.csv'}"
    with pytest.raises(KeyboardInterrupt, match=r"ssvid pretrain .*run --resume"):
        ssvid.pretrain(
            RECIPE,
            f"data.root={video_folder}",
            table,
            run_dir=tmp_path / "run",
            callbacks=[Press()],
            show_progress=False,
        )
