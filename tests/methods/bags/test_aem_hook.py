"""The hook on models that know nothing of it: written by hand, from torch, from PyTorch Geometric, and our own."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.aem import ACMIL, AEMLoss, AEMRegularizer, GatedABMIL, attention_entropy

Y = torch.tensor([1])


@pytest.fixture
def bag():
    return torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


class Ilse(nn.Module):
    """Attention pooling as the original tutorial writes it: a score per row, softmax, weighted sum."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.attention = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 1))
        self.head = nn.Linear(16, 2)

    def forward(self, bag):
        rows = self.embed(bag)
        weights = self.attention(rows).transpose(1, 0).softmax(1)
        return self.head(weights @ rows)


class DotProduct(nn.Module):
    """Heads of dot products with a learned query, over padded batches; returns attention before the softmax too."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.head = nn.Parameter(torch.randn(4, 2)), nn.Linear(8, 8), nn.Linear(32, 2)

    def forward(self, bags, mask):
        keys = self.key(bags).unflatten(2, (4, 2))
        scores = torch.einsum("bnhd,hd->bhn", keys, self.query)
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(2)
        return self.head((weights @ bags).flatten(1)), scores


class Clinical(nn.Module):
    """Torch's own multi-head attention, which shows probabilities only."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.pool, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

    def forward(self, bags):
        pooled, _ = self.pool(self.query.expand(len(bags), 1, 8), bags, bags, average_attn_weights=False)
        return self.head(pooled[:, 0])


def test_it_rewards_the_entropy_of_a_model_of_ones_own(bag):
    """The gradient of loss plus term against one written out through the model's own layers."""
    torch.manual_seed(0)
    model = Ilse()
    twin = copy.deepcopy(model)
    term = AEMRegularizer.attach(model, "attention", weight=0.3, total_epochs=50)
    (nn.functional.cross_entropy(model(bag), Y) + term(epoch=25)).backward()
    weights = twin.attention(twin.embed(bag)).softmax(0)
    entropy = -(weights * weights.log()).sum()
    (nn.functional.cross_entropy(twin(bag), Y) - 0.15 * entropy).backward()
    torch.testing.assert_close(term.entropy, entropy.detach())
    for found, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, atol=1e-6, rtol=1e-4)


def test_it_spreads_attention_in_training_and_lets_go(bag):
    entropies = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = Ilse()
        nn.init.normal_(model.attention[2].weight, std=5.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        with AEMRegularizer.attach(model, "attention", weight=weight, schedule="constant") as term:
            for _ in range(60):
                optimizer.zero_grad()
                (nn.functional.cross_entropy(model(bag), Y) + term()).backward()
                optimizer.step()
        entropies[weight] = attention_entropy(model.attention(model.embed(bag)), dim=0).item()
    assert entropies[0.0] < 2.5 < 3.6 < entropies[1.0] <= math.log(40)
    assert not model.attention._forward_hooks


def test_of_heads_over_padded_batches_it_takes_the_mean(bag):
    torch.manual_seed(0)
    model, mask = DotProduct(), torch.ones(2, 40, dtype=torch.bool)
    mask[1, 25:] = False
    term = AEMRegularizer.attach(model, "", select=lambda output: output[1], dim=-1, weight=1.0)
    _, scores = model(torch.stack([bag, bag]), mask)
    rows = [row[kept] for per_bag, kept in zip(scores, mask, strict=True) for row in per_bag]
    expected = torch.stack([attention_entropy(row) for row in rows]).mean()
    torch.testing.assert_close(term(mask=mask), -expected)


def test_probabilities_are_explained_and_can_be_taken_by_their_logarithm(bag):
    torch.manual_seed(0)
    model = Clinical()
    with AEMRegularizer.attach(model, "pool", select=lambda output: output[1]) as term:
        model(bag[None])
        with pytest.raises(ValueError, match=r"probabilities.*clamp_min\(1e-30\)\.log"):
            term()
    with AEMRegularizer.attach(
        model, "pool", select=lambda output: output[1].clamp_min(1e-30).log(), weight=1.0
    ) as term:
        model(bag[None])
        found = term()
    probabilities = model.pool(model.query, bag[None], bag[None], average_attn_weights=False)[1]
    torch.testing.assert_close(found, (probabilities * probabilities.log()).sum(-1).mean())


def test_it_takes_what_others_wrote(bag):
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    model = geometric.AttentionalAggregation(nn.Linear(8, 1))
    with AEMRegularizer.attach(model, "gate_nn", weight=1.0) as term:
        model(bag, index=torch.zeros(40, dtype=torch.int64))
        expected = attention_entropy(model.gate_nn(bag)[:, 0].detach())
        torch.testing.assert_close(term(), -(expected + expected) / 2)  # the check above ran the layer once more


def test_on_our_models_it_is_the_loss(bag):
    loss = AEMLoss(weight=0.2)
    for model, dim in ((GatedABMIL(8, generator=0), None), (ACMIL(8, hidden_share=0.0, generator=0), -2)):
        with AEMRegularizer.attach(model, "pooling.score", dim=dim, weight=0.2) as term:
            output = model(bag)
            own = output.classification_loss(nn.functional.cross_entropy, Y)
            torch.testing.assert_close(own + term(), loss(output, Y))


def test_a_weight_of_zero_changes_no_bit_of_training(bag):
    states = []
    for weight in (None, 0.0):
        torch.manual_seed(0)
        model = Ilse()
        term = None if weight is None else AEMRegularizer.attach(model, "attention", weight=weight)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(bag), Y)
            added = torch.zeros(()) if term is None else term()
            assert added.item() == 0
            (loss + added).backward()
            optimizer.step()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_passes_since_the_last_call_are_averaged_and_forgotten(bag):
    torch.manual_seed(0)
    model = Ilse()
    term = AEMRegularizer.attach(model, "attention", weight=1.0)
    model(bag), model(bag[:10])
    expected = [attention_entropy(model.attention(model.embed(rows)), dim=0) for rows in (bag, bag[:10])]
    torch.testing.assert_close(term(), -torch.stack(expected * 2).mean())  # with the two passes of the line above
    with pytest.raises(RuntimeError, match="since the last call"):
        term()
    model.eval()(bag)
    with torch.no_grad():
        model.train()(bag)
    with pytest.raises(RuntimeError, match="training mode"):
        term()
    model(bag), model(bag)
    with pytest.raises(ValueError, match="mask must be of a single forward pass"):
        term(mask=torch.ones(40, dtype=torch.bool))


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"name": "atention"}, ValueError, "attention"),
        ({"name": "attention", "weight": -1.0}, ValueError, "weight"),
        ({"name": "attention", "total_epochs": 0}, ValueError, "total_epochs"),
        ({"module": None, "name": "attention"}, TypeError, "module"),
    ],
)
def test_what_cannot_be_attached_is_refused(settings, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(error, match=named):
        AEMRegularizer.attach(**{"module": Ilse(), **settings})


def test_outputs_that_are_not_plainly_attention_need_to_be_told(bag):
    torch.manual_seed(0)
    model = Clinical()
    AEMRegularizer.attach(model, "pool")
    with pytest.raises(TypeError, match="select"):
        model(bag[None])
    model = ACMIL(8, hidden_share=0.0)
    term = AEMRegularizer.attach(model, "pooling.score")
    model(bag)
    with pytest.raises(ValueError, match=r"dim must say.*\(40, 5\)"):
        term()
