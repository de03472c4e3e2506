"""Several networks from one reading of the videos: the bits of each are those that it gets alone."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssvid.backbones import initialize_backbone
from ssvid.evals.contract import Tools
from ssvid.evals.histograms import Histograms, as_histograms
from ssvid.features import passes
from ssvid.features.extracting import Subject, extract_features, read_features
from ssvid.recipe.schema import ProbeRecipe, RetrieveRecipe
from tests.frozen import beside, labeled, make_row


@pytest.fixture
def readings(monkeypatch):
    """How many videos each reading went through."""
    found = []
    plain = passes.read_in_order

    def counted(manifest, reads, *rest, **options):
        found.extend([len(reads)] * bool(reads))
        return plain(manifest, reads, *rest, **options)

    monkeypatch.setattr(passes, "read_in_order", counted)
    return found


@pytest.fixture
def rows(manifest):
    """One is shorter than a clip, so that its last frame is repeated."""
    short = make_row(manifest.root, "short.mp4", "red", "train", seed=77, num_frames=5)
    return (*manifest.rows[:6], short)


def test_each_gets_the_bits_that_it_gets_alone(manifest, quick, rows, tmp_path, readings):
    networks = [initialize_backbone("tiny3d", {"width": 4}, seed=seed) for seed in (0, 1)]
    protocols = [replace(quick, frames=frames) for frames in ("video", "single_frame", "shuffled")]
    subjects = [
        *(Subject(network, protocols[0]) for network in networks),
        *(Subject(networks[0], protocol) for protocol in protocols[1:]),
        Subject(networks[0], replace(quick, stages="stage2", pool="avgmax")),
        Subject(networks[0], protocols[0]),  # twice: of one reading, and of one cache
        Subject(Histograms(), as_histograms(quick), "histograms"),
    ]
    seen = []
    read_features(
        subjects, manifest, rows, cache_dir=tmp_path / "one", progress=lambda done, total: seen.append((done, total))
    )
    assert readings == [len(rows)]
    assert seen[-1] == (len(rows), len(rows))
    assert len(list((tmp_path / "one").iterdir())) == 6
    for subject in subjects:
        alone = extract_features(
            subject.backbone, manifest, rows, subject.protocol, trained_stage=subject.trained_stage
        )
        together = extract_features(
            subject.backbone,
            manifest,
            rows,
            subject.protocol,
            trained_stage=subject.trained_stage,
            cache_dir=tmp_path / "one",
        )
        assert together.from_cache and not alone.from_cache
        assert together.values_ND.tobytes() == alone.values_ND.tobytes()
        assert (together.stage_columns, together.padded) == (alone.stage_columns, alone.padded)
        assert together.decoders == alone.decoders and len(alone.padded) == 1
    one, single, shuffled = (
        extract_features(networks[0], manifest, rows, protocol, cache_dir=tmp_path / "one").values_ND
        for protocol in protocols
    )
    assert not np.allclose(one, single) and not np.allclose(one, shuffled)


def test_only_what_is_missing_is_read_and_other_pixels_are_left_alone(manifest, quick, rows, tmp_path, readings):
    network = initialize_backbone("tiny3d", {"width": 4}, seed=0)
    other = replace(quick, resize_px=quick.resize_px + 2)
    jittered = replace(quick, defects=("color_jitter",))
    subjects = [
        Subject(network, protocol) for protocol in (quick, other, jittered, replace(jittered, frames="shuffled"))
    ]
    read_features(subjects, manifest, rows, cache_dir=tmp_path)
    assert readings == [len(rows)] * 4, "four ways of reading, and no two subjects share one"
    subjects.append(Subject(initialize_backbone("tiny3d", {"width": 4}, seed=1), quick))
    read_features(subjects, manifest, rows, cache_dir=tmp_path)
    assert readings == [len(rows)] * 5
    read_features(subjects, manifest, rows, cache_dir=tmp_path)
    assert readings == [len(rows)] * 5, "nothing is missing"
    short = subjects[0]._replace(protocol=replace(quick, num_clips=1))
    read_features([short], manifest, rows[:4], cache_dir=tmp_path)
    changed = [*rows[:2], replace(rows[2], end_frame=10), *rows[3:]]
    found = read_features([*subjects[:1], short], manifest, changed, cache_dir=tmp_path)
    assert readings[5:] == [4, 1, 4], "the window that changed; and with one clip those that are new, too"
    assert [features.from_cache for features in found] == [False, False]


def test_a_video_that_fails_costs_itself_alone(manifest, quick, rows, tmp_path, readings):
    broken = replace(rows[2], path="train/blue/none.mp4", content_id="")
    rows = (*rows[:2], broken)
    subjects = [Subject(initialize_backbone("tiny3d", {"width": 4}, seed=seed), quick) for seed in (0, 1)]
    read_features(subjects, manifest, rows, cache_dir=tmp_path)
    for found in read_features(subjects, manifest, rows, cache_dir=tmp_path):
        assert [listed.id for listed in found.unreadable] == [broken.path]
    assert readings == [3, 1], "what could be read is kept, and what failed is tried once for all networks"
    whole = Path(manifest.root) / broken.path
    shutil.copy(Path(manifest.root) / manifest.rows[8].path, whole)
    try:
        found = extract_features(subjects[0].backbone, manifest, rows, quick, cache_dir=tmp_path)
        assert (found.unreadable, found.readable.all(), sum(found.decoders.values())) == ((), True, 3)
        assert readings == [3, 1, 1]
        expected = extract_features(subjects[0].backbone, manifest, [manifest.rows[8]], quick)
        np.testing.assert_allclose(found.values_ND[2], expected.values_ND[0], atol=1e-5)
        again = extract_features(subjects[0].backbone, manifest, rows, quick, cache_dir=tmp_path)
        assert again.from_cache and len(readings) == 4 and again.values_ND.tobytes() == found.values_ND.tobytes()
    finally:
        whole.unlink()


def test_equal_files_are_one_vector_whatever_their_names(manifest, quick, rows, tmp_path, readings):
    """But for what is drawn by the name."""
    renamed = replace(rows[0], path="train/blue/renamed.mp4")
    whole = Path(manifest.root) / renamed.path
    shutil.copy(Path(manifest.root) / rows[0].path, whole)
    network = initialize_backbone("tiny3d", {"width": 4}, seed=0)
    try:
        for frames in ("video", "shuffled"):
            protocol = replace(quick, frames=frames)
            both = extract_features(network, manifest, [*rows, renamed], protocol, cache_dir=tmp_path)
            alone = extract_features(network, manifest, [renamed], protocol, cache_dir=tmp_path)
            assert alone.from_cache
            assert both.values_ND[-1].tobytes() == alone.values_ND[0].tobytes()
            assert np.array_equal(both.values_ND[-1], both.values_ND[0]) is (frames == "video")
    finally:
        whole.unlink()


def test_no_file_is_hashed_once_for_each_network(manifest, quick, rows, tmp_path, monkeypatch):
    from ssvid.data.index import scan_cache

    hashed, plain = [], scan_cache.content_id
    monkeypatch.setattr(scan_cache, "content_id", lambda path: hashed.append(path) or plain(path))
    subjects = [Subject(initialize_backbone("tiny3d", {"width": 4}, seed=seed), quick) for seed in range(4)]
    read_features(subjects, manifest, rows, cache_dir=tmp_path)
    for subject in subjects:
        extract_features(subject.backbone, manifest, rows, quick, cache_dir=tmp_path)
    assert len(hashed) <= len(rows), "once in all, if the index has not done it"


def test_histograms_come_from_the_reading_of_the_network_at_whatever_size_it_has(manifest, quick, tmp_path, readings):
    """A size that is left to the network: its own, and not that of the histograms."""
    network = initialize_backbone("tiny3d", {"width": 4}, seed=0)
    assert network.info.size != Histograms().info.size
    network.provenance = {"stage": None, "content_ids": [], "seed": 3}
    recipe = ProbeRecipe()
    recipe.features = replace(quick, num_clips=1, crop_px=0, resize_px=0)
    recipe.probe = replace(recipe.probe, knn_ks=(3,), num_holdouts=1)
    rows = beside(recipe, network, labeled(manifest), tools=Tools(cache_dir=tmp_path), pretrained=network)
    assert "histograms" in {row.name for row in rows}
    assert readings == [18, 9]


@pytest.mark.parametrize("what", ["probe", "retrieve"])
def test_an_evaluation_with_all_baselines_reads_each_video_twice(
    manifest, quick, tmp_path, readings, monkeypatch, what
):
    """Once for all features, and the training videos once for the random network's batch statistics."""
    calibrated = []
    from ssvid.evals import baselines

    plain = baselines.read_videos
    monkeypatch.setattr(baselines, "read_videos", lambda m, r, p: calibrated.append(len(r)) or plain(m, r, p))
    networks = {
        name: initialize_backbone("tiny3d", {"width": 4}, seed=i) for i, name in enumerate(("pretrained", "placebo"))
    }
    for network in networks.values():
        network.provenance = {"stage": None, "content_ids": [], "seed": 3}
    recipe = ProbeRecipe() if what == "probe" else RetrieveRecipe()
    recipe.features = replace(quick, num_clips=1)
    if what == "probe":
        recipe.probe = replace(recipe.probe, knn_ks=(3,), num_holdouts=1)
    else:
        recipe.retrieval = replace(recipe.retrieval, ks=(1,))
    told = []
    data, tools = labeled(manifest), Tools(cache_dir=tmp_path, say=told.append)

    def run():
        return beside(recipe, networks["pretrained"], data, tools=tools, **networks)

    rows = run()
    names = {row.name for row in rows}
    assert {"pretrained", "placebo", "random", "single frame", "shuffled frames", "histograms"} <= names
    assert (readings, calibrated) == ([18, 9], [18])
    again = run()
    assert (readings, calibrated) == ([18, 9], [18]), "all is remembered, batch statistics included"
    assert [(r.name, r.metric, r.value) for r in again] == [(r.name, r.metric, r.value) for r in rows]
    (file,) = tmp_path.glob("statistics-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    run()
    assert (readings, calibrated) == ([18, 9], [18, 18]), "a damaged file is noticed"
    assert file.read_bytes() != bytes(content)
    assert "features of 7 networks and baselines from one reading of 27 videos" in told
