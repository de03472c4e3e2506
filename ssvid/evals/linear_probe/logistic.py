"""Multinomial logistic regression with an L2 penalty, solved to the optimum along a path of penalties.

scikit-learn's LogisticRegression has the same optimum. Features of one network are so alike that its L-BFGS needs
hundreds of steps for each penalty. Here a few Newton steps are taken in the principal axes of the features, each scaled by its own
curvature; conjugate gradients solve for each step (truncated Newton, as in Lin, Weng and Keerthi, JMLR 2008). They end at the
gradient of the features as they are, so that the optimum is the same with any BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import log_softmax

# Of the norm of the weights: with a penalty, the distance to the optimum is at most that of the gradient over the penalty.
_TOLERANCE = 1e-3
_LEAST_GRADIENT = 1e-9  # where the weights are next to nothing
_MOST_CG_STEPS = 500  # of one Newton step
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
        start = np.hstack([weights_KR * scale_R, bias_K[:, None]]).ravel()
        scaled, steps, is_done = _newton(objective, start, scale_R, penalty, max_iterations)
        weights_KR, bias_K = scaled[:, :-1] / scale_R, scaled[:, -1]
        weights_KD = weights_KR @ axes_RD
        problem = "" if is_done else f"did not converge in {steps} iterations"
        yield LogisticFit(weights_KD, bias_K - weights_KD @ center_D, steps, problem)


def _newton(
    objective: _Objective, start: np.ndarray, scale_R: np.ndarray, penalty: float, most_steps: int
) -> tuple[np.ndarray, int, bool]:
    """[W | b] in scaled coordinates (K, R + 1), steps taken, and whether the optimum is reached."""
    flat, unscale = start, np.append(scale_R, 1.0)
    for step in range(most_steps + 1):
        value, gradient = objective(flat)
        both = flat.reshape(objective.num_classes, -1)
        wanted = max(_TOLERANCE * penalty * float(np.linalg.norm(both[:, :-1] / scale_R)), _LEAST_GRADIENT)
        is_done = bool(np.linalg.norm(gradient.reshape(both.shape) * unscale) <= wanted)
        if is_done or step == most_steps:
            return both, step, is_done
        curvature = LinearOperator((flat.size, flat.size), matvec=objective.curvature_at(flat), dtype=np.float64)
        enough = min(0.1, float(np.linalg.norm(gradient)) ** 0.5)
        way, _ = cg(curvature, -gradient, rtol=enough, maxiter=_MOST_CG_STEPS)
        flat = flat + _shortened(objective, flat, way, value, float(gradient @ way)) * way
    raise ValueError(f"max_iterations ({most_steps}) must not be negative")


def _shortened(objective: _Objective, flat: np.ndarray, way: np.ndarray, value: float, slope: float) -> float:
    """How much of a step to take: all of it, or half of that again and again until the objective falls (Armijo)."""
    share, rounding = 1.0, 8 * np.finfo(float).eps * abs(value)
    while share > 1e-6 and objective(flat + share * way)[0] > value + 1e-4 * share * slope + rounding:
        share /= 2
    return share


class _Objective:
    """Value, gradient and curvature at [W | b], flattened. penalty_R: one for each column of z."""

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

    def curvature_at(self, flat: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """What multiplies a direction, flattened, with the matrix of second derivatives."""
        both = flat.reshape(self.num_classes, -1)
        p_NK = np.exp(log_softmax(self.z_NR @ both[:, :-1].T + both[:, -1], axis=1))

        def product(direction: np.ndarray) -> np.ndarray:
            along = direction.reshape(self.num_classes, -1)
            scores_NK = self.z_NR @ along[:, :-1].T + along[:, -1]
            moved_NK = p_NK * (scores_NK - (p_NK * scores_NK).sum(axis=1, keepdims=True)) / len(self.rows)
            weights_KR = moved_NK.T @ self.z_NR + self.penalty_R * along[:, :-1]
            return np.hstack([weights_KR, moved_NK.sum(axis=0)[:, None]]).ravel()

        return product
