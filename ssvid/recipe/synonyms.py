"""What people type for our settings, options and verbs because other programs call them so. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# Our settings, and the words by which others call them. Dashes and underlines are the same.
_WORDS: dict[str, str] = {
    "data.root": "data dataset data_dir data_root data_path dataset_dir dir folder path root train_dir video_dir video_root videos",
    "optim.base_lr": "lr learning_rate base_learning_rate init_lr max_lr blr",
    "optim.epochs": "epoch max_epochs n_epochs num_epochs num_train_epochs total_epochs train_epochs",
    "optim.warmup_epochs": "warmup warm_up num_warmup_epochs warmup_steps",
    "optim.weight_decay": "wd decay l2",
    "optim.grad_clip_norm": "clip_grad grad_clip gradient_clip gradient_clip_val max_grad_norm clip_norm",
    "optim.schedule": "scheduler lr_scheduler lr_schedule",
    "optim.name": "optimizer optimiser opt optim",
    "loader.global_batch": "batch batch_size bs batchsize per_device_train_batch_size train_batch_size",
    "loader.workers_per_device": "workers num_workers n_workers dataloader_num_workers",
    "loader.decoder": "backend reader video_backend",
    "trainer.devices": "gpus gpu num_gpus n_gpus ngpus num_devices n_devices nproc",
    "trainer.num_nodes": "nodes n_nodes nnodes",
    "trainer.accelerator": "device cuda cpu",
    "trainer.precision": "amp fp16 bf16 half mixed_precision dtype",
    "trainer.accumulate": "accum accumulation accumulate_grad_batches grad_accum gradient_accumulation_steps accum_iter",
    "trainer.max_steps": "steps num_steps iterations max_iter max_iters iters",
    "trainer.log_every_steps": "log_every log_every_n_steps log_interval print_freq logging_steps",
    "trainer.save_every_steps": "save_every save_every_n_steps save_freq save_interval save_steps checkpoint_every",
    "trainer.val_every_epochs": "val_every check_val_every_n_epoch eval_every val_interval",
    "logger.wandb": "use_wandb wandb_mode report_to",
    "logger.project": "wandb_project project_name",
    "data.val_fraction": "val_split val_ratio val_frac validation_fraction validation_split holdout test_split test_size",
    "data.list": "file_list filelist list_file train_list annotation_file",
    "data.name": "dataset_name data_type data_format",
    "task.options.num_frames": "frames n_frames nframes clip_len clip_length clip_size sequence_length seq_len T",
    "finetune.stride_frames": "stride frame_stride sampling_rate frame_interval temporal_stride",
    "finetune.crop_px": "crop crop_size img_size image_size input_size resolution size imsize",
    "finetune.num_clips": "clips n_clips num_views views test_clips",
    "task.name": "task method pretext pretext_task algorithm ssl_method",
    "backbone.name": "backbone model arch architecture network net encoder model_name backbone_name",
    "init_from": "init pretrained weights checkpoint ckpt load_from resume_from_checkpoint initialize_from finetune_from",
    "probe.knn_ks": "k knn knn_k",
    "seed": "random_seed manual_seed rng_seed random_state",
}
_MEANT = {word: setting for setting, words in _WORDS.items() for word in words.split()}
# What a recipe of another kind, or another verb, has in its place, the likeliest first.
_ALSO: dict[str, tuple[str, ...]] = {
    "optim.base_lr": ("probe.learning_rates",),
    "optim.epochs": ("probe.head_epochs",),
    "optim.weight_decay": ("probe.weight_decays",),
    "optim.schedule": ("probe.head_schedule",),
    "optim.name": ("probe.solver",),
    "loader.global_batch": ("finetune.batch_size", "features.batch_size"),
    "loader.workers_per_device": ("features.workers",),
    "loader.decoder": ("features.decoder",),
    "data.val_fraction": ("finetune.holdout_fraction",),
    "task.options.num_frames": ("finetune.num_frames", "features.num_frames"),
    "finetune.stride_frames": ("features.stride_frames",),
    "finetune.crop_px": ("features.crop_px", "task.options.max_px"),
    "finetune.num_clips": ("features.num_clips",),
    "probe.knn_ks": ("retrieval.ks",),
    "--backbone": ("--checkpoint", "CHECKPOINT"),
    "--run-dir": ("--out", "OUT"),
    "VIDEOS": ("ROOT", "RESULT"),
}

# The groups that a recipe of a verb has, so that a mistyped option is answered without loading the schema.
_GROUPS = {
    "pretrain": ("data", "optim", "loader", "trainer", "logger", "task", "backbone", "init_from", "seed"),
    "finetune": ("data", "finetune", "optim", "loader", "trainer", "logger", "backbone", "seed"),
    "probe": ("data", "features", "probe", "backbone", "seed"),
    "retrieve": ("data", "features", "retrieval", "backbone", "seed"),
    "evaluate": ("data", "features", "evaluation", "backbone", "seed"),
    "track": ("data", "track", "backbone", "seed"),
}
# Options, and words without dashes, under other names; the verb's own are taken.
_OPTION_WORDS = {
    "--backbone": "backbone checkpoint ckpt weights model pretrained model-path checkpoint-path load from-checkpoint",
    "--run-dir": "run-dir out output output-dir outdir out-dir output-path save-dir save log-dir logdir run name run-name o",
    "--resume": "continue resume-from restart restore auto-resume extend",
    "--device": "device gpu cuda cpu accelerator",
    "RECIPE": "config cfg recipe c config-file experiment",
    "VIDEOS": "data dataset data-dir data-root root videos video input i dir folder path",
    "--workers": "workers num-workers n-workers j",
    "--num-frames": "num-frames frames n-frames clip-len",
    "--batch-size": "batch-size batch bs",
    "--num-clips": "num-clips clips n-clips views",
    "--json": "as-json format-json",
    "--debug": "verbose v trace traceback",
    "--reader": "reader type data-name",
    "--format": "format to",
}
_OPTION_MEANT = {word: option for option, words in _OPTION_WORDS.items() for word in words.split()}
_VERBS = {
    "pretrain": "train fit run pretraining start",
    "probe": "eval test linear linear-probe score validate-backbone",
    "finetune": "fine-tune ft tune",
    "retrieve": "retrieval search knn nearest",
    "report": "table results summarize plot",
    "embed": "features extract extract-features encode predict infer inference",
    "export": "convert save publish onnx",
    "data index": "index scan",
    "data synth": "synth generate",
    "data download": "download fetch",
    "show": "validate print config describe summary cat",
    "diff": "compare",
    "recipes": "ls list zoo configs",
    "backbones": "models networks",
    "doctor": "check checks env info version",
    "--help": "help man usage",
}
_VERB_MEANT = {word: verb for verb, words in _VERBS.items() for word in words.split()}


def settings_for(key: str, known: Collection[str]) -> list[str]:
    """The settings among ``known`` (whole paths) that a word, the end of a mistyped key, is another name of."""
    setting = _MEANT.get(_plain(key)) or (key if key in _WORDS else None)
    if setting is None:
        return []
    found = [path for path in (setting, *_ALSO.get(setting, ())) if path in known]
    return sorted(found, key=lambda path: not path.startswith("finetune."))[:1]  # a fine-tuning has groups of both


def setting_for_option(word: str, verb: str) -> str:
    """The setting of a verb's recipe that an option such as ``--epochs`` means; "" where it is none."""
    setting = _MEANT.get(_plain(word)) or next((s for s in _WORDS if s.rpartition(".")[2] == _plain(word)), "")
    groups = _GROUPS.get(verb, ())
    return next((path for path in (setting, *_ALSO.get(setting, ())) if path.split(".")[0] in groups), "")


def option_for(word: str, own: Iterable[str]) -> str:
    """The option, or the word without dashes, of a verb's own that another name stands for; "" where there is none."""
    own, meant = set(own), _OPTION_MEANT.get(word.lstrip("-").replace("_", "-"), "")
    return next((option for option in (meant, *_ALSO.get(meant, ())) if option in own), "")


def verb_for(word: str) -> str:
    """The verb that a word is another name of; "" where it is none."""
    return _VERB_MEANT.get(word.lower(), "")


def _plain(word: str) -> str:
    plain = word.lstrip("-").replace("-", "_")
    return plain if plain == "T" else plain.lower()
