"""A training of ten steps on the videos of the tests, in which something is made to happen."""

RECIPE = {
    "kind": "pretrain",
    "seed": 5,
    "data": {"root": "???", "index_workers": 1},
    "backbone": {"name": "tiny3d", "options": {"width": 2}},
    "task": {
        "name": "speediness",
        "options": {"num_frames": 6, "frame_px": 32, "min_px": 16, "max_px": 32, "eval_px": 24},
    },
    "optim": {"name": "adamw", "base_lr": 0.05, "epochs": 2, "warmup_epochs": 0},
    "loader": {"global_batch": 4, "workers_per_device": 0},
    "trainer": {"accelerator": "cpu", "devices": "1", "threads": 1, "pictures": False, "log_every_steps": 1},
    "monitor": {"features": False, "clips_per_video": 1},
}
STEPS = 10  # 5 in an epoch
