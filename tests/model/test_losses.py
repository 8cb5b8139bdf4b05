"""The losses against numbers computed by hand."""

import math

import pytest
import torch

from model.losses import LOSSES, binary_cross_entropy, categorical_cross_entropy


def test_the_papers_loss_divides_by_the_sum_of_sigmoids():
    probabilities = torch.tensor([[0.8, 0.2, 0.6], [0.5, 0.3, 0.1]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    logits = torch.logit(probabilities)
    by_hand = (-math.log(0.8 / 1.6) - math.log(0.6 / 1.6) - math.log(0.3 / 0.9)) / 2
    assert categorical_cross_entropy(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)


def test_a_row_without_a_finding_costs_nothing_in_it_and_something_in_ours():
    logits, nothing = torch.full((2, 14), 5.0), torch.zeros(2, 14)
    assert categorical_cross_entropy(logits, nothing).item() == 0
    assert binary_cross_entropy(logits, nothing).item() == pytest.approx(5.0067, abs=1e-3)


def test_both_stay_finite_far_out():
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    for loss in LOSSES.values():
        value = loss(logits, torch.tensor([[0.0, 1.0, 0.0]]))
        (gradient,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()
