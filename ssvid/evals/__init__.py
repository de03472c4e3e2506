"""What a frozen backbone is worth: features, linear probe, k-NN, anchors, results. No task is seen in here."""

from ssvid.evals.anchors import RandomRows, calibrate_batch_norm, random_rows
from ssvid.evals.evaluate import check_rows, evaluate_backbone, leak_note
from ssvid.evals.features import Features, Listed, extract_features
from ssvid.evals.knn import NeighborResult, score_neighbors
from ssvid.evals.linear_probe import ProbeResult, linear_probe, select_regularization
from ssvid.evals.protocol import (
    FeatureProtocol,
    ProbeProtocol,
    check_probe_protocol,
    resolve_feature_protocol,
)
from ssvid.evals.results import (
    Difference,
    ResultRow,
    SeedSummary,
    bootstrap_interval,
    compare_rows,
    over_seeds,
    paired_difference,
    read_results,
    render_table,
    write_results,
)

__all__ = [
    "Difference",
    "FeatureProtocol",
    "Features",
    "Listed",
    "NeighborResult",
    "ProbeProtocol",
    "ProbeResult",
    "RandomRows",
    "ResultRow",
    "SeedSummary",
    "bootstrap_interval",
    "calibrate_batch_norm",
    "check_probe_protocol",
    "check_rows",
    "compare_rows",
    "evaluate_backbone",
    "extract_features",
    "leak_note",
    "linear_probe",
    "over_seeds",
    "paired_difference",
    "random_rows",
    "read_results",
    "render_table",
    "resolve_feature_protocol",
    "score_neighbors",
    "select_regularization",
    "write_results",
]
