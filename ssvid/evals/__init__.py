"""What a frozen backbone is worth: features, linear probe, k-NN, anchors, results. No task is seen in here."""

from ssvid.evals.anchors import RandomRows, calibrate_batch_norm, random_rows
from ssvid.evals.evaluate import check_rows, evaluate_backbone, leak_note
from ssvid.evals.features import Features, Listed, extract_features
from ssvid.evals.knn import NeighborResult, Neighbors, score_neighbors, search
from ssvid.evals.linear_probe import ProbeResult, linear_probe, select_head
from ssvid.evals.protocol import (
    FeatureProtocol,
    ProbeProtocol,
    RetrievalProtocol,
    check_probe_protocol,
    check_retrieval_protocol,
    resolve_feature_protocol,
    resolve_retrieval,
)
from ssvid.evals.results import (
    Difference,
    ResultRow,
    SeedSummary,
    compare_rows,
    over_seeds,
    paired_difference,
    read_results,
    render_table,
    write_results,
)
from ssvid.evals.retrieval import RetrievalResult, Retrieved, random_retrieval, retrieve, retrieve_with

__all__ = [
    "Difference",
    "FeatureProtocol",
    "Features",
    "Listed",
    "NeighborResult",
    "Neighbors",
    "ProbeProtocol",
    "ProbeResult",
    "RandomRows",
    "ResultRow",
    "RetrievalProtocol",
    "RetrievalResult",
    "Retrieved",
    "SeedSummary",
    "calibrate_batch_norm",
    "check_probe_protocol",
    "check_retrieval_protocol",
    "check_rows",
    "compare_rows",
    "evaluate_backbone",
    "extract_features",
    "leak_note",
    "linear_probe",
    "over_seeds",
    "paired_difference",
    "random_retrieval",
    "random_rows",
    "read_results",
    "render_table",
    "resolve_feature_protocol",
    "resolve_retrieval",
    "retrieve",
    "retrieve_with",
    "score_neighbors",
    "search",
    "select_head",
    "write_results",
]
