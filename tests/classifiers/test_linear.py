"""The linear head, by hand."""

import torch
import torch.nn.functional as F

from ssvid.classifiers.linear import LinearHead


def test_a_linear_head_is_the_mean_and_one_matrix():
    head = LinearHead(5, 3)
    map_BCTHW = torch.randn(2, 5, 2, 3, 3)
    by_hand = map_BCTHW.flatten(2).mean(2) @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(map_BCTHW), by_hand)


def test_the_normalized_linear_head_is_that_of_coclr():
    head = LinearHead(5, 3, norm="l2_batch")
    vectors = torch.randn(7, 5)
    normalized = F.batch_norm(F.normalize(vectors), None, None, training=True)
    torch.testing.assert_close(
        head(vectors[:, :, None, None, None]), normalized @ head.classifier.weight.T + head.classifier.bias
    )
    assert not [name for name, _ in head.named_parameters() if name.startswith("norm")]
