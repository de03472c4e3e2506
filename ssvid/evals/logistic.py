"""Multinomial logistic regression with an L2 penalty, solved to the optimum along a path of penalties.

scikit-learn's LogisticRegression has the same optimum. Features of one network are so alike that its L-BFGS needs
hundreds of steps for each penalty; in the principal axes of the features, each scaled by its own curvature, tens do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

# Largest entry of the gradient in the scaled coordinates. Measured on real features of 400 videos: scores are then
# within 1e-3 of the optimum's for penalties from 0.01 on, within 0.03 for 0.001, whose scores are ten times as large.
_GRADIENT_TOLERANCE = 1e-5
_HISTORY = 10
# Directions in which the features spread less than this share of the widest one are noise of the arithmetic.
_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class LogisticFit:
    """weights_KD, bias_K: the scores of x are ``x @ weights.T + bias``. problem: why the solver gave up, or ""."""

    weights_KD: np.ndarray
    bias_K: np.ndarray
    num_iterations: int
    problem: str

    def scores(self, x_ND: np.ndarray) -> np.ndarray:
        """Unnormalized log probabilities (N, K)."""
        return x_ND @ self.weights_KD.T + self.bias_K


def fit_path(
    x_ND: np.ndarray, codes_N: np.ndarray, num_classes: int, penalties: Sequence[float], *, max_iterations: int
) -> Iterator[LogisticFit]:
    """Minimize mean cross-entropy + penalty / 2 * |W|^2 for each penalty, each from the solution before.

    The bias is not penalized. In scikit-learn's words C = 1 / (penalty * N), for two classes 2 / (penalty * N).

    Args:
        x_ND: float64. codes_N: class of each row, int in [0, num_classes).
        penalties: positive; strongest first is fastest.
    """
    center_D = x_ND.mean(axis=0)
    u_NR, spread_R, axes_RD = np.linalg.svd(x_ND - center_D, full_matrices=False)
    kept = spread_R > _RANK_TOLERANCE * max(spread_R.max(initial=0.0), np.finfo(float).tiny)
    z_NR, axes_RD = u_NR[:, kept] * spread_R[kept], axes_RD[kept]
    curvature_R = spread_R[kept] ** 2 / len(x_ND) / num_classes  # where all classes are equally likely
    weights_KR, bias_K = np.zeros((num_classes, z_NR.shape[1])), np.zeros(num_classes)
    for penalty in penalties:
        scale_R = np.sqrt(curvature_R + penalty)
        objective = _Objective(z_NR / scale_R, codes_N, penalty / scale_R**2, num_classes)
        found = minimize(
            objective,
            np.hstack([weights_KR * scale_R, bias_K[:, None]]).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": max_iterations,
                "maxfun": 10 * max_iterations,
                "maxcor": _HISTORY,
                "gtol": _GRADIENT_TOLERANCE,
                "ftol": 64 * np.finfo(float).eps,
            },
        )
        scaled = found.x.reshape(num_classes, -1)
        weights_KR, bias_K = scaled[:, :-1] / scale_R, scaled[:, -1]
        weights_KD = weights_KR @ axes_RD
        problem = "" if found.success else f"did not converge in {found.nit} iterations ({found.message})"
        yield LogisticFit(weights_KD, bias_K - weights_KD @ center_D, int(found.nit), problem)


class _Objective:
    """Value and gradient for L-BFGS at [W | b], flattened. penalty_R: one for each column of z."""

    def __init__(self, z_NR: np.ndarray, codes_N: np.ndarray, penalty_R: np.ndarray, num_classes: int) -> None:
        self.z_NR, self.penalty_R, self.num_classes = z_NR, penalty_R, num_classes
        self.rows, self.codes_N = np.arange(len(codes_N)), codes_N

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = flat.reshape(self.num_classes, -1)
        weights_KR, bias_K = both[:, :-1], both[:, -1]
        log_p_NK = log_softmax(self.z_NR @ weights_KR.T + bias_K, axis=1)
        loss = -log_p_NK[self.rows, self.codes_N].mean() + 0.5 * (self.penalty_R * weights_KR**2).sum()
        residual_NK = np.exp(log_p_NK)
        residual_NK[self.rows, self.codes_N] -= 1.0
        residual_NK /= len(self.rows)
        gradient = np.hstack(
            [residual_NK.T @ self.z_NR + self.penalty_R * weights_KR, residual_NK.sum(axis=0)[:, None]]
        )
        return float(loss), gradient.ravel()
