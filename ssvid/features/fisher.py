"""Fisher vectors: how a set of descriptors would have a mixture of Gaussians change, in one vector.

Perronnin, Sanchez and Mensink, *Improving the Fisher kernel for large-scale image classification* (ECCV 2010); equations 16 to 18
of Sanchez, Perronnin, Mensink and Verbeek, *Image classification with the Fisher vector* (IJCV 2013).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

# Least variance of a Gaussian. Descriptors have length 1: a tenth of their spread is some hundred times as much.
_LEAST_VARIANCE = 1e-6
_MOST_ITERATIONS = 100


class Gaussians(NamedTuple):
    """A mixture with diagonal covariances, float64: shares of the Gaussians, their means and variances."""

    weights_K: np.ndarray
    means_KD: np.ndarray
    variances_KD: np.ndarray


class Codebook(NamedTuple):
    """What descriptors are told by: their mean, the directions in which they vary most (M of D), and a mixture in these."""

    mean_D: np.ndarray
    directions_MD: np.ndarray
    gaussians: Gaussians

    def encode(self, values_ND: np.ndarray) -> np.ndarray:
        """The Fisher vector of some descriptors, (2 K M,), of length 1; zeros where there are none."""
        reduced_NM = (values_ND.astype(np.float64) - self.mean_D) @ self.directions_MD.T
        return improved(fisher_vector(reduced_NM, self.gaussians))

    @property
    def width(self) -> int:
        """Numbers in a Fisher vector."""
        return 2 * self.gaussians.means_KD.size


def fit_codebook(values_ND: np.ndarray, num_gaussians: int, seed: int) -> Codebook:
    """PCA to half of the dimensions, and a mixture in it by expectation maximization. values_ND: at least ``num_gaussians``."""
    values_ND = values_ND.astype(np.float64)
    most = max(1, min(values_ND.shape[1] // 2, len(values_ND)))
    pca = PCA(most, svd_solver="covariance_eigh").fit(values_ND)
    mixture = GaussianMixture(
        num_gaussians, covariance_type="diag", reg_covar=_LEAST_VARIANCE, max_iter=_MOST_ITERATIONS, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any mixture can be encoded by; a better one gains little
        mixture.fit(pca.transform(values_ND))
    gaussians = Gaussians(mixture.weights_, mixture.means_, mixture.covariances_)
    return Codebook(pca.mean_, pca.components_, gaussians)


def fisher_vector(points_ND: np.ndarray, gaussians: Gaussians) -> np.ndarray:
    """Gradients of the mean log-likelihood of points, scaled by the Fisher information: (2 K D,), those of all means first.

    With q the share of a Gaussian k in a point x, and d = (x - mean) / deviation, they are the means over points of
    q d / sqrt(w) and of q (d^2 - 1) / sqrt(2 w). Zeros where there is no point.
    """
    weights_K, means_KD, variances_KD = gaussians
    if not len(points_ND):
        return np.zeros(2 * means_KD.size)
    share_NK = shares(points_ND, gaussians)
    # Sums of q, q x and q x^2 say all: nothing of the size of points x Gaussians x dimensions is held.
    zeroth_K1 = share_NK.sum(axis=0)[:, None]
    first_KD, second_KD = share_NK.T @ points_ND, share_NK.T @ points_ND**2
    of_means_KD = (first_KD - zeroth_K1 * means_KD) / np.sqrt(variances_KD)
    squares_KD = (second_KD - 2 * means_KD * first_KD + zeroth_K1 * means_KD**2) / variances_KD
    of_variances_KD = (squares_KD - zeroth_K1) / np.sqrt(2)
    both = np.stack([of_means_KD, of_variances_KD]) / (len(points_ND) * np.sqrt(weights_K))[:, None]
    return np.asarray(both.ravel())


def shares(points_ND: np.ndarray, gaussians: Gaussians) -> np.ndarray:
    """How much of each point is due to each Gaussian (N, K); the sum over Gaussians is 1."""
    weights_K, means_KD, variances_KD = gaussians
    precisions_KD = 1 / variances_KD
    distance_NK = points_ND**2 @ precisions_KD.T - 2 * points_ND @ (means_KD * precisions_KD).T
    distance_NK += (means_KD**2 * precisions_KD).sum(axis=1)
    level_K = np.log(weights_K) - 0.5 * np.log(variances_KD).sum(axis=1)
    return np.asarray(softmax(level_K - 0.5 * distance_NK, axis=1))


def improved(vector_D: np.ndarray) -> np.ndarray:
    """Signed square roots, and then length 1 (Perronnin et al. 2010, sections 3.1 and 3.2); zeros stay."""
    rooted_D = np.sign(vector_D) * np.sqrt(np.abs(vector_D))
    length = np.linalg.norm(rooted_D)
    return np.asarray(rooted_D / length if length else rooted_D)
