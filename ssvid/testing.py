"""Contract checks that anybody who writes a plug-in can call from their own tests.

``check_backbone("mine")`` and ``check_task("mine")`` return nothing, or raise AssertionError with what is broken.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import json
import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import (
    Backbone,
    BackboneInfo,
    BackboneInputError,
    convert_to_channels_last_3d,
    initialize_backbone,
)
from ssvid.data.index.signals import still_signals
from ssvid.errors import SsvidError
from ssvid.tasks import BatchRandom, PretextTask, tasks
from ssvid.types import ClipMaker, Stream, TaskOutput, Ticket, VideoInfo

# Of the norm of a map. Fifty layers that each round to 8 bits stay below it; a wrong cast does not.
LOW_PRECISION_ERROR = 0.1


def check_backbone(name: str, **options: Any) -> None:
    """Check a registered network against the contract of ``ssvid.backbones.Backbone``."""
    backbone = initialize_backbone(name, options, seed=0).eval()
    with torch.no_grad():
        _check_info(backbone, name)
        _check_maps(backbone)
        _check_one_pass(backbone)
        _check_depth(backbone)
        _check_sizes(backbone)
        _check_low_precision(backbone)
        _check_copies(backbone, name)
        _check_twin(backbone)
    _check_gradients(backbone)  # last, for it changes the network


def _clip(info: BackboneInfo, *, num_frames: int | None = None, size: int | None = None) -> Tensor:
    """Noise, two clips that are as small as a check can be: many networks are large."""
    generator = torch.Generator().manual_seed(0)
    side = size or max(info.min_px, 24)
    shape = (2, info.in_channels, _admitted(info, 2) if num_frames is None else num_frames, side, side)
    return torch.rand(shape, generator=generator)


def _admitted(info: BackboneInfo, num_frames: int) -> int:
    """The number of frames that is nearest to this one and that the network takes."""
    return max(info.min_frames, num_frames if info.max_frames is None else min(num_frames, info.max_frames))


def _require(condition: bool, complaint: str) -> None:
    if not condition:  # not the statement ``assert``: python -O would remove the check from a stranger's test run
        raise AssertionError(complaint)


def _check_info(backbone: Backbone, name: str) -> None:
    info = backbone.info
    _require(info.name == name, f"info.name is {info.name!r}, but the network is registered as {name!r}")
    _require(len(info.mean) == len(info.std) == info.in_channels, "mean and std need one value per input channel")
    _require(len(set(info.stage_names)) == len(info.stages) > 0, "stage names must differ and there must be one")
    plain = json.loads(json.dumps(info.to_dict()))
    _require(BackboneInfo.from_dict(plain) == info, "info does not survive JSON: use plain types only")
    rebuilt = initialize_backbone(name, info.options, seed=0)
    _require(rebuilt.info == info, "info.options does not rebuild the same network")
    _require(_same_state(rebuilt, backbone), "the same seed gives other weights")
    added = {"mean_C111", "std_C111"} & set(backbone.state_dict())
    _require(not added, f"{added} must not be in the state dict")


def _check_maps(backbone: Backbone) -> None:
    """Channels and strides of the info are those of the maps: a clip one stride larger gives one cell more."""
    info = backbone.info
    clip = _clip(info)
    last = info.stages[-1]
    longer = _admitted(info, clip.shape[2] + last.stride_time)
    larger = _clip(info, num_frames=longer, size=clip.shape[3] + last.stride_space)
    names = info.stage_names
    for stage, small, large in zip(info.stages, backbone(clip, names), backbone(larger[:1], names), strict=True):
        got, more = tuple(small.shape), tuple(large.shape)
        started = (-(-clip.shape[2] // stage.stride_time), *(-(-s // stage.stride_space) for s in clip.shape[3:]))
        cells = started if info.full_maps else tuple(map(min, got[2:], started))
        want = (2, stage.channels, *cells)
        _require(got == want, f"stage {stage.name}: map {got}, but channels and strides of info say {want}")
        in_time, in_space = (longer - clip.shape[2]) // stage.stride_time, last.stride_space // stage.stride_space
        want = (1, got[1], got[2] + in_time, got[3] + in_space, got[4] + in_space)
        _require(more == want, f"stage {stage.name}: map {more} of a larger clip, but strides of info say {want}")


def _check_one_pass(backbone: Backbone) -> None:
    clip = _clip(backbone.info)
    names = backbone.info.stage_names[::-1]
    for name, together in zip(names, backbone(clip, names), strict=True):
        alone = backbone(clip, name)
        _require(torch.equal(together, alone), f"stage {name}: one pass for all gives another map")
    _require(torch.equal(backbone(clip), backbone(clip, names[0])), "stage=None must be the last stage")
    vectors, alone = backbone.embed(clip, names[-1]), backbone(clip, names[-1])
    _require(torch.equal(vectors, alone.mean(dim=(2, 3, 4))), f"stage {names[-1]}: embed is not the mean of its map")


def _check_depth(backbone: Backbone) -> None:
    """Stages deeper than the one asked for must not be computed: they would cost time and move statistics."""
    first = backbone.info.stage_names[0]
    ran: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, stage=stage: ran.add(stage))
        for stage in backbone.info.stage_names
        for module in backbone.stage_modules(stage)
    ]
    backbone(_clip(backbone.info), first)
    for hook in hooks:
        hook.remove()
    _require(ran == {first}, f"stage {first!r} was asked for, but {sorted(ran)} were computed")


def _check_sizes(backbone: Backbone) -> None:
    info = backbone.info
    for num_frames, size in (
        (info.min_frames, info.min_px),
        (_admitted(info, info.min_frames + 3), max(info.min_px, 33)),
    ):
        map_BCTHW = backbone(_clip(info, num_frames=num_frames, size=size))
        finite = bool(map_BCTHW.isfinite().all())
        _require(finite, f"{num_frames} frames of {size} px give values that are not finite")
    _require_refusal(backbone, _clip(info, num_frames=info.min_frames - 1), f"{info.min_frames - 1} frames")
    if info.max_frames is not None:
        _require_refusal(backbone, _clip(info, num_frames=info.max_frames + 1), f"{info.max_frames + 1} frames")
    small = _clip(info)[..., : info.min_px - 1]
    _require_refusal(backbone, small, f"{info.min_px - 1} pixels")


def _require_refusal(backbone: Backbone, clip: Tensor, what: str) -> None:
    try:
        backbone(clip)
    except BackboneInputError as error:
        _require(what in str(error), f"a clip of {what} is refused without saying so: {error}")
    else:
        raise AssertionError(f"a clip of {what} is taken, but info says that it is too small or too long")


def _check_low_precision(backbone: Backbone) -> None:
    """bfloat16 has 8 bits: a forward pass stays near that of float32."""
    clip = _clip(backbone.info)
    want = backbone(clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = backbone(clip).float()
    error = ((got - want).norm() / want.norm()).item()
    _require(bool(got.isfinite().all()), "bfloat16 autocast gives values that are not finite")
    _require(error < LOW_PRECISION_ERROR, f"bfloat16 autocast is off by {error:.1%} of the map's norm")


def _check_copies(backbone: Backbone, name: str) -> None:
    clip = _clip(backbone.info)
    want = backbone(clip)
    _require(torch.equal(pickle.loads(pickle.dumps(backbone))(clip), want), "pickling gives another network")
    other = initialize_backbone(name, backbone.info.options, seed=1).eval()
    _require(not _same_state(other, backbone), "another seed gives the same weights")
    other.load_state_dict(backbone.state_dict())
    _require(torch.equal(other(clip), want), "the state dict does not hold everything the network computes with")


def _check_twin(backbone: Backbone) -> None:
    """A copy gives the same map; so does it with its weights laid out channels-last, and compiled in place."""
    clip = _clip(backbone.info)
    want = backbone(clip)
    twin = copy.deepcopy(backbone)
    _require(torch.equal(twin(clip), want), "copying gives another network")
    convert_to_channels_last_3d(twin)
    torch.testing.assert_close(twin(clip), want, atol=1e-4, rtol=1e-4)
    _check_compiled(twin, backbone.info.stage_names[0])  # tracing all stages takes seconds: see check_compiled


def check_compiled(name: str, **options: Any) -> None:
    """Check that the whole network can be compiled in place, and then gives the same map. Takes seconds."""
    backbone = initialize_backbone(name, options, seed=0).eval()
    with torch.no_grad():
        _check_compiled(backbone, backbone.info.stage_names[-1])


def _check_compiled(backbone: Backbone, stage: str) -> None:
    """With a backend that changes nothing: what is checked is that the network can be traced in one piece."""
    clip, keys = _clip(backbone.info), list(backbone.state_dict())
    want = backbone(clip, stage)
    torch.compiler.reset()  # or the networks before it count as other versions of this one, and after 8 nothing is traced
    backbone.compile(backend="eager", fullgraph=True)
    got = backbone(clip, stage)
    _require(list(backbone.state_dict()) == keys, "compile() changes the keys of the state dict")
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def _same_state(one: Backbone, two: Backbone) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _check_gradients(backbone: Backbone) -> None:
    """Each parameter up to a stage gets a gradient, none beyond it, and frozen stages stay as they are."""
    names = backbone.info.stage_names
    stage = names[-2] if len(names) > 1 else names[-1]
    backbone.freeze_after(stage)
    backbone.train()
    for name in names:
        frozen = names.index(name) > names.index(stage)
        for module in backbone.stage_modules(name):
            _require(module.training is not frozen, f"frozen stage {name} must stay in evaluation")
    beyond = [module for name in names[names.index(stage) + 1 :] for module in backbone.stage_modules(name)]
    before = [copy.deepcopy(module.state_dict()) for module in beyond]
    backbone(_clip(backbone.info)).pow(2).mean().backward()
    for key, parameter in backbone.named_parameters():
        _require(parameter.requires_grad is (parameter.grad is not None), f"{key}: gradient does not fit freeze_after")
    inside = {id(p) for module in beyond for p in module.parameters()}
    for key, parameter in backbone.named_parameters():
        _require(
            parameter.requires_grad is (id(parameter) not in inside), f"{key}: is frozen, or not, against its stage"
        )
    for module, state in zip(beyond, before, strict=True):
        moved = [key for key, value in module.state_dict().items() if not torch.equal(value, state[key])]
        _require(not moved, f"frozen state moved: {moved}")


# ---- tasks -----------------------------------------------------------------------------------------------------------

# Options by which a task is made small enough for a test, where its Config has them.
SMALL_OPTIONS = {"num_frames": 8, "num_parts": 2}
SMALL_OPTIONS |= {"frame_px": 32, "local_px": 16, "min_px": 16, "max_px": 32, "eval_px": 32}
NUM_PLACEBOS = 100  # draws of a placebo in which kept answers are counted
NUM_PLANNED = 150  # batches of 4 plans, and plans they are put together from, in which right answers are counted
MAX_CLASSES = 10  # answers of more values are no classes


def check_task(task: str | PretextTask, backbone: str = "", **options: Any) -> None:
    """Check a task against the contract of ``ssvid.tasks.PretextTask``, on clips of noise.

    Args:
        task: name of a registered task, or one that was built for this backbone (with small clips); its ``setup`` is called.
        backbone: network for the task ("": its ``example_backbone``). options: of its Config, over ``SMALL_OPTIONS``.
    """
    kind = tasks.get(task) if isinstance(task, str) else type(task)
    network = initialize_backbone(backbone or kind.example_backbone, seed=0)
    task = _make_task(task, network.info, options) if isinstance(task, str) else task
    task.setup(network)
    _check_task_state(task, network)
    for training in (True, False):
        _check_plans(task.clip_maker(training))
    for training in (True, False):
        task.train(training)
        _check_step(task, network, training)
    _check_task_gradients(task, network)
    _check_placebo(task)
    _check_answer(task, network)


def _check_answer(task: PretextTask, network: Backbone) -> None:
    """Where a task answers clip by clip: of a wide frame too, and the parts of each logit add up to it."""
    question = task.clip_question()
    if question is None:
        return
    px = max(question.size_px, network.info.min_px)
    clips = torch.rand(2, network.info.in_channels, question.num_frames, px, px + px // 2)
    task.eval(), network.eval()
    with torch.no_grad():
        logits, bias, exact, local, strength = task.answer(clips, network)
    what = f"{type(task).__name__}.answer"
    _require(logits.shape == (2,), f"{what} must give one logit for each clip, not {tuple(logits.shape)}")
    same = exact.ndim == 4 and exact.shape == local.shape == strength.shape
    _require(same, f"{what} must give three maps (B, T, H, W) of one shape")
    adds_up = torch.allclose(exact.sum(dim=(2, 3)).mean(dim=1) + bias, logits, atol=1e-4, rtol=1e-4)
    _require(adds_up, f"{what}: the sum over space and mean over time of exact_BTHW, plus bias, must be the logit")
    _require(bool((strength >= 0).all()), f"{what}: strength_BTHW must be at least 0")


def _make_task(name: str, info: BackboneInfo, options: dict[str, Any]) -> PretextTask:
    factory = tasks.get(name)
    if factory.Config is type(None):
        return factory(None, info)
    known = {field.name for field in dataclasses.fields(factory.Config)}
    small = {key: value for key, value in SMALL_OPTIONS.items() if key in known}
    return factory(factory.Config(**(small | options)), info)


def refusal_of(task: str, network: Backbone) -> str:
    """Why a task with its default options cannot train a network, in the words of either; "" where it can.

    A batch of noise goes through the task. Of the network only the shapes of its maps are computed.

    Args:
        network: as ``ssvid.backbones.contract.without_weights`` gives it.
    """
    config = tasks.get(task).Config
    try:
        built = tasks.get(task)(None if config is type(None) else config(), network.info)
        shapes = ShapesOnly(network)
        built.setup(shapes)
        batch, draws = _task_batch(built, True, num_samples=2)
        with torch.no_grad():
            built.train()(built.augment(batch, draws), shapes)
    except SsvidError as error:
        return str(error)
    return ""


class ShapesOnly(Backbone):
    """A network that refuses the clips that its model refuses, and gives maps of zeros of the same shapes.

    Args:
        model: the network, on the meta device.
    """

    def __init__(self, model: Backbone) -> None:
        super().__init__(model.info)
        self._model = (model,)  # no submodule: it has no weights
        self.drops_tokens = model.drops_tokens  # type: ignore[misc]

    def forward(self, clip_BCTHW: Tensor, stage: Any = None, **dropped: Tensor) -> Any:
        """Zeros; which tokens are dropped changes no shape."""
        maps = self._model[0](clip_BCTHW.to("meta"), stage)
        return torch.zeros(maps.shape) if isinstance(maps, Tensor) else tuple(torch.zeros(one.shape) for one in maps)


def _check_task_state(task: PretextTask, network: Backbone) -> None:
    owned = {id(p) for p in task.parameters()} & {id(p) for p in network.parameters()}
    _require(not owned, "the task owns parameters of the backbone: it must only be handed it")
    _require(bool(task.chance()), "chance() must say what a blind guess scores")
    network.info.stage(task.stage)


def _video(maker: ClipMaker, num_frames: int) -> VideoInfo:
    """A video of noise, with the per-frame measurements that the clip maker asks for: nothing moves in it."""
    signals = still_signals(getattr(maker, "signals", ()), num_frames)
    return VideoInfo("noise", num_frames, 25.0, 48, 64, signals=signals)


def _check_plans(maker: ClipMaker) -> None:
    pickle.loads(pickle.dumps(maker))
    before = np.random.get_state()[1].tobytes()  # type: ignore[union-attr,index]
    for num_frames in (maker.min_frames, maker.min_frames + 37):
        for seed in range(20):
            plan, again = (maker.plan(_video(maker, num_frames), *_generators(seed)) for _ in range(2))
            pairs = zip(plan.views, again.views, strict=True)
            _require(all(np.array_equal(a, b) for a, b in pairs), "plan() is not a function of its generators")
            for view in plan.views:
                _require(view.dtype == np.int64 and view.ndim == 1 and view.size > 0, "a view is int64 (T,)")
                _require(0 <= view.min() and view.max() < num_frames, "a view leaves the video")
    after = np.random.get_state()[1].tobytes()  # type: ignore[union-attr,index]
    _require(before == after, "plan() draws from numpy's global generator")


def _generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    return np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])


def _task_batch(task: PretextTask, training: bool, num_samples: int = 4) -> tuple[dict[str, Any], BatchRandom]:
    maker = task.clip_maker(training)
    info = _video(maker, maker.min_frames + 9)
    noise = torch.randint(0, 256, (info.num_frames, 3, 48, 64), dtype=torch.uint8, generator=torch.manual_seed(0))
    samples = []
    for seed in range(num_samples):
        draws = _generators(seed)[0], _generators(0)[1]  # the second is that of the batch: the same for all samples
        plan = maker.plan(info, *draws)
        views = tuple(noise[torch.from_numpy(view.copy())] for view in plan.views)
        sample = maker.transform(views, plan, *draws)
        _require(set(plan.targets) <= set(sample), f"targets {set(plan.targets) - set(sample)} are not in the sample")
        _require(set(task.targets) <= set(sample), f"task.targets {task.targets} are not in the sample")
        samples.append(sample)
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    _require(any(v.dtype == torch.uint8 for v in batch.values()), "pixels leave the worker as uint8")
    tickets = [Ticket(int(Stream.TRAIN), 0, 0, i // 2, i % 2) for i in range(num_samples)]  # two clips of each video
    batch |= {"tickets": torch.tensor(tickets), "video_numbers": torch.arange(num_samples)[:, None] // 2}
    return batch, BatchRandom.of(0, tickets)


def _check_step(task: PretextTask, network: Backbone, training: bool) -> None:
    batch, draws = _task_batch(task, training)
    augmented = task.augment(dict(batch), draws)
    _require(all(v.dtype != torch.uint8 for v in augmented.values()), "augment() leaves uint8 pixels")
    again = task.augment(dict(batch), _task_batch(task, training)[1])
    same = all(torch.equal(again[key], augmented[key]) for key in augmented)
    _require(same, "augment() is not a function of its draws")
    with torch.no_grad():
        output = task(augmented, network.train(training))
    _require(output.loss.ndim == 0 and bool(torch.isfinite(output.loss)), "the loss must be one finite number")
    for metric, values in output.metrics.items():
        _require(tuple(values.shape) == (len(draws.samples),), f"metric {metric!r} must have one value per sample")
    if not training:
        _check_measures(task, output)
    for key, picture in task.visualize(augmented, output).items():
        _require(picture.dtype == np.uint8 and picture.ndim == 3, f"picture {key!r} must be uint8 HWC")


def _check_measures(task: PretextTask, output: TaskOutput) -> None:
    """In validation everything that the task promises to measure is there; in training a part may have its turn alone."""
    extra = set(task.epoch_metrics()) - set(output.scores)
    _require(not extra, f"epoch metrics {extra} get no scores")
    unknown = set(task.chance()) - set(output.metrics) - set(task.epoch_metrics())
    _require(not unknown, f"chance() names {unknown}, which are measured nowhere")
    for name, metric in task.epoch_metrics().items():
        metric.update(*output.scores[name])
    measured = {"loss", *output.metrics, *task.epoch_metrics()}
    idle = [pattern for pattern in task.smaller_is_better if not fnmatch.filter(measured, pattern)]
    _require(not idle, f"smaller_is_better names {idle}, which are measured nowhere")


def _check_task_gradients(task: PretextTask, network: Backbone) -> None:
    network.freeze_after(task.stage)
    batch, draws = _task_batch(task, True)
    task.train()(task.augment(batch, draws), network.train()).loss.backward()
    trained = [*task.named_parameters(), *network.named_parameters()]
    without = [name for name, p in trained if p.requires_grad and p.grad is None]
    _require(not without, f"{without} get no gradient: no parameter may stay unused, or training on many GPUs fails")


def _check_placebo(task: PretextTask) -> None:
    batch, draws = _task_batch(task.train(), True, num_samples=16)
    augmented = task.augment(batch, draws)
    changed = task.placebo(augmented, np.random.default_rng(1))
    moved = {key for key in augmented if not torch.equal(augmented[key], changed[key])}
    _require(bool(moved), "placebo() changes nothing")
    _require(not task.targets or moved <= set(task.targets), f"placebo() changes {moved - set(task.targets)} too")
    for key in moved - (set(task.targets) if task.num_classes else set()):
        alike = torch.equal(augmented[key].flatten().sort().values, changed[key].flatten().sort().values)
        _require(alike or not task.targets, f"placebo() must permute {key!r}, not invent it")
    for key in sorted(moved):
        _check_strangers(task, augmented, key)
    _check_independence(task, augmented, moved)
    for one in (
        {key: value[:1] for key, value in augmented.items()},
        {key: value[:2] for key, value in augmented.items()},
    ):
        _check_refusal(task, one)


def _check_strangers(task: PretextTask, batch: dict[str, Any], key: str) -> None:
    """Where every answer occurs once, none may come from the sample's own video: counted over many draws."""
    views = batch[key].shape[1] if key in task.targets and task.targets_per_view else 1
    answers_ND = batch[key].reshape(len(batch[key]) * views, -1)
    if len(answers_ND.unique(dim=0)) < len(answers_ND):
        return
    videos_N = batch["video_numbers"][:, 0].repeat_interleave(views)
    is_own_NN = videos_N[:, None] == videos_N
    kept = 0
    for seed in range(NUM_PLACEBOS):
        given_ND = task.placebo(batch, np.random.default_rng([2, seed]))[key].reshape(answers_ND.shape)
        kept += int((torch.cdist(given_ND.double(), answers_ND.double(), p=1).eq(0) & is_own_NN).sum())
    share = kept / (NUM_PLACEBOS * len(answers_ND))
    _require(
        kept == 0,
        f"placebo() leaves {share:.1%} of {key!r} as the sample's own video has it; see ssvid.tasks.strangers",
    )


def _check_independence(task: PretextTask, batch: dict[str, Any], moved: set[str]) -> None:
    """Where answers are classes, a placebo's is right as often as its class is frequent, not more and not less."""
    maker, small = task.clip_maker(True), {key: value[:4] for key, value in batch.items()}
    small["video_numbers"] = torch.arange(4)[:, None]
    small["tickets"] = torch.tensor([Ticket(int(Stream.TRAIN), 0, 0, i) for i in range(4)])
    truth: dict[str, list[np.ndarray]] = {}
    given: dict[str, list[np.ndarray]] = {}
    info = _video(maker, maker.min_frames + 9)
    pool = [maker.plan(info, np.random.default_rng([3, i]), np.random.default_rng(0)) for i in range(NUM_PLANNED)]
    for number in range(NUM_PLANNED):
        plans = [pool[i] for i in np.random.default_rng([4, number]).choice(len(pool), 4, replace=False)]
        drawn = {k: torch.from_numpy(np.stack([p.targets[k] for p in plans])) for k in plans[0].targets if k in moved}
        drawn = {k: v for k, v in drawn.items() if (v.shape, v.dtype) == (small[k].shape, small[k].dtype)}
        changed = task.placebo(small | drawn, np.random.default_rng([3, number]))
        for key in (key for key, value in drawn.items() if not value.is_floating_point()):
            truth.setdefault(key, []).append(drawn[key].numpy().ravel())
            given.setdefault(key, []).append(changed[key].numpy().ravel())
    for key in truth:
        _require_chance(key, np.concatenate(truth[key]), np.concatenate(given[key]))


def _require_chance(key: str, truth_N: np.ndarray, given_N: np.ndarray) -> None:
    classes = np.union1d(truth_N, given_N)
    if len(classes) > MAX_CLASSES:
        return
    chance = sum(float((truth_N == c).mean() * (given_N == c).mean()) for c in classes)
    right = float((truth_N == given_N).mean())
    doubt = 5 * (chance * (1 - chance) / len(truth_N)) ** 0.5
    complaint = f"placebo(): {key!r} is right in {right:.1%}, and by chance it would be in {chance:.1%}"
    _require(abs(right - chance) <= doubt, complaint)


def _check_refusal(task: PretextTask, batch: dict[str, Any]) -> None:
    try:
        task.placebo(batch, np.random.default_rng(4))
    except SsvidError:
        return
    what = f"a batch of {len(batch['tickets'])}, all of one video"
    raise AssertionError(f"placebo() takes {what}: there is no other video's answer to give; see ssvid.tasks.strangers")
