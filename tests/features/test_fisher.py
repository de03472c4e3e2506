"""Fisher vectors: by hand, by loops, by another library, and zero where the mixture is that of the points."""

import numpy as np
import pytest
from scipy.special import logsumexp
from skimage.feature import fisher_vector as fisher_vector_of_skimage
from sklearn.mixture import GaussianMixture

from ssvid.features.fisher import Gaussians, fisher_vector, fit_codebook, improved, shares


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-2, 1, (60, 3)), rng.normal(1, 0.5, (40, 3))])


@pytest.fixture
def gaussians():
    rng = np.random.default_rng(1)
    return Gaussians(np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 3)), rng.uniform(0.5, 2, (3, 3)))


def test_two_points_and_one_gaussian_by_hand():
    """Mean 1 and variance 4: the points 3 and 5 are 1 and 2 deviations away."""
    one = Gaussians(np.array([1.0]), np.array([[1.0]]), np.array([[4.0]]))
    vector = fisher_vector(np.array([[3.0], [5.0]]), one)
    of_mean, of_variance = (1 + 2) / 2, ((1**2 - 1) + (2**2 - 1)) / (2 * 2**0.5)
    np.testing.assert_allclose(vector, [of_mean, of_variance], rtol=1e-12)
    length = (of_mean + of_variance) ** 0.5  # of the square roots
    np.testing.assert_allclose(improved(vector), [of_mean**0.5 / length, of_variance**0.5 / length], rtol=1e-12)


def test_it_is_that_of_loops_over_points_and_gaussians(points, gaussians):
    weights, means, variances = gaussians
    of_means, of_variances = np.zeros((3, 3)), np.zeros((3, 3))
    for x in points:
        density = [
            w * np.prod(np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v))
            for w, m, v in zip(weights, means, variances, strict=True)
        ]
        for k in range(3):
            share = density[k] / sum(density)
            for d in range(3):
                away = (x[d] - means[k, d]) / variances[k, d] ** 0.5
                of_means[k, d] += share * away / (len(points) * weights[k] ** 0.5)
                of_variances[k, d] += share * (away**2 - 1) / (len(points) * (2 * weights[k]) ** 0.5)
    expected = np.concatenate([of_means.ravel(), of_variances.ravel()])
    np.testing.assert_allclose(fisher_vector(points, gaussians), expected, rtol=1e-10, atol=1e-12)


def test_it_is_that_of_scikit_image(points):
    mixture = GaussianMixture(2, covariance_type="diag", random_state=0).fit(points[::3])
    ours = fisher_vector(points, Gaussians(mixture.weights_, mixture.means_, mixture.covariances_))
    of_means, of_variances = fisher_vector_of_skimage(points, mixture)[2:].reshape(
        2, -1
    )  # the first two are of the weights
    # Its gradients of variances have the other sign: a point that is far away makes them smaller.
    np.testing.assert_allclose(ours, np.concatenate([of_means, -of_variances]), rtol=1e-8, atol=1e-10)


def test_it_is_the_gradient_of_the_log_likelihood_by_finite_differences(points, gaussians):
    """Of a mean and of a deviation, times the deviation and divided by the root of the weight; of a deviation by that of 2, too."""
    weights, means, variances = gaussians
    deviations = variances**0.5

    def log_likelihood(means, deviations):
        away = (points[:, None] - means) ** 2 / deviations**2
        logs = np.log(weights) - 0.5 * (away + np.log(2 * np.pi * deviations**2)).sum(axis=2)
        return logsumexp(logs, axis=1).mean()

    found = fisher_vector(points, gaussians).reshape(2, 3, 3)
    for k, d in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[k, d] = 1e-5
        of_mean = log_likelihood(means + step, deviations) - log_likelihood(means - step, deviations)
        of_deviation = log_likelihood(means, deviations + step) - log_likelihood(means, deviations - step)
        scale = deviations[k, d] / weights[k] ** 0.5 / 2e-5
        np.testing.assert_allclose(found[:, k, d], [of_mean * scale, of_deviation * scale / 2**0.5], atol=1e-8)


def test_it_is_zero_where_the_mixture_was_fitted_on_the_points(points):
    """At the optimum nothing is to be gained, by means or by variances."""
    mixture = GaussianMixture(2, covariance_type="diag", reg_covar=0, tol=1e-13, max_iter=5000, random_state=0)
    mixture.fit(points)
    own = Gaussians(mixture.weights_, mixture.means_, mixture.covariances_)
    assert np.abs(fisher_vector(points, own)).max() < 1e-5
    assert np.abs(fisher_vector(points + 0.5, own)).max() > 0.1


def test_points_of_the_mixture_itself_give_less_the_more_they_are(gaussians):
    rng = np.random.default_rng(3)

    def drawn(num):
        of = rng.choice(3, num, p=gaussians.weights_K)
        return gaussians.means_KD[of] + gaussians.variances_KD[of] ** 0.5 * rng.normal(size=(num, 3))

    few, many = (np.linalg.norm(fisher_vector(drawn(num), gaussians)) for num in (100, 100_000))
    assert many < 0.1 * few and many < 0.05


def test_shares_are_of_one_even_far_away(gaussians):
    found = shares(np.array([[0.0, 0, 0], [1e3, -1e3, 1e3]]), gaussians)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_codebook_halves_the_dimensions_and_is_the_same_again():
    values = np.random.default_rng(0).normal(size=(400, 10)) * np.arange(1, 11)
    book, again = (fit_codebook(values, 4, seed=3) for _ in range(2))
    assert book.directions_MD.shape == (5, 10) and book.width == 2 * 4 * 5
    np.testing.assert_array_equal(book.gaussians.means_KD, again.gaussians.means_KD)
    assert np.abs(book.directions_MD).argmax(axis=1).tolist() == [9, 8, 7, 6, 5]  # what varies most comes first
    encoded = book.encode(values[:7].astype(np.float32))
    assert np.linalg.norm(encoded) == pytest.approx(1)
    assert not book.encode(values[:0]).any(), "nothing was found: zeros"


def test_a_codebook_of_two_descriptors_can_be_fitted():
    book = fit_codebook(np.array([[0.0, 1, 2], [1.0, 0, 2]]), 1, seed=0)
    assert np.isfinite(book.encode(np.eye(3))).all()
