"""The models: blind to padding and to order, against formulas written out for one bag, and probed for monotonicity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from offprint.methods.bags.mil_unit_tests import (
    MISVM,
    NSK,
    SIL,
    STK,
    AttentionMIL,
    GraphMIL,
    HopfieldMIL,
    MINet,
    MiSVM,
    MonotoneMIL,
    TransformerMIL,
    make_single_concept,
    miNet,
    monotonicity_probe,
    run_unit_test,
)
from offprint.methods.bags.mil_unit_tests.models import nearest_links
from offprint.methods.bags.ragged import RaggedBags

MODELS = {
    "MI-Net": lambda: MINet(5, 16, generator=0),
    "mean": lambda: MINet(5, 16, pooling="mean", generator=0),
    "attention": lambda: AttentionMIL(5, 16, generator=0),
    "gated": lambda: AttentionMIL(5, 16, attention="gated", generator=0),
    "Transformer": lambda: TransformerMIL(5, 16, generator=0),
    "graph": lambda: GraphMIL(5, 16, generator=0),
    "directed": lambda: GraphMIL(5, 16, symmetric=False, generator=0),
    "Hopfield": lambda: HopfieldMIL(5, 16, generator=0),
    "association": lambda: HopfieldMIL(5, 16, association_steps=2, generator=0),
    "mi-Net": lambda: miNet(5, 16, generator=0),
    "MonotoneMIL": lambda: MonotoneMIL(5, width=16, generator=0),
    "positive weights": lambda: MonotoneMIL(5, width=16, head="network", generator=0),
}
RESPECTING = ("mi-Net", "MonotoneMIL", "positive weights")


@pytest.fixture
def bags() -> RaggedBags:
    source = torch.Generator().manual_seed(0)
    return RaggedBags.from_list([torch.randn(size, 5, generator=source, dtype=torch.float64) for size in (4, 1, 9, 2)])


@pytest.mark.parametrize("kind", MODELS)
def test_neither_padding_nor_order_nor_other_bags_matter(bags, kind):
    """To 1e-5, the brief's tolerance; in float64 they agree far better."""
    model = MODELS[kind]().double().eval()
    together = model(bags)
    assert together.shape == (4,)
    for i, bag in enumerate(bags):
        turned = bag[torch.randperm(len(bag), generator=torch.Generator().manual_seed(1))]
        torch.testing.assert_close(model(RaggedBags.from_list([turned]))[0], together[i], atol=1e-5, rtol=0)
    rows, mask = bags.padded()
    # Whatever stands where the mask is false is never seen.
    rows[~mask] = 77.0
    torch.testing.assert_close(model(rows, mask), together, atol=1e-5, rtol=0)
    wider = torch.cat([rows, torch.full((4, 3, 5), 1e6, dtype=torch.float64)], 1)
    longer = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(wider, longer), together, atol=1e-5, rtol=0)


def test_each_deep_model_is_its_formula(bags):
    """Written out for one bag at a time."""
    bag = bags[2]
    for kind in ("MI-Net", "mean", "attention", "gated"):
        model = MODELS[kind]().double().eval()
        hidden = bag
        for layer in model.network.features:
            hidden = nn.functional.linear(hidden, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else hidden
            hidden = torch.where(hidden > 0, hidden, 0.2 * hidden) if isinstance(layer, nn.LeakyReLU) else hidden
        head = model.network.head
        if kind in ("MI-Net", "mean"):
            pooled = hidden.max(0).values if kind == "MI-Net" else hidden.mean(0)
            expected = pooled @ head.weight[0] + head.bias[0]
        elif kind == "attention":
            seen = torch.cat([hidden, hidden.mean(0).expand_as(hidden)], 1)
            part = model.attention
            weights = torch.softmax(
                torch.tanh(seen @ part.content.weight.T + part.content.bias) @ part.score.weight[0], 0
            )
            expected = (weights @ hidden).sum()
        else:
            part = model.attention
            content = torch.tanh(hidden @ part.content.weight.T + part.content.bias)
            gate = torch.sigmoid(hidden @ part.gate.weight.T + part.gate.bias)
            weights = torch.softmax((content * gate) @ part.score.weight[0], 0)
            expected = weights @ hidden @ head.weight[0] + head.bias[0]
        torch.testing.assert_close(model(bags)[2], expected)


@pytest.mark.parametrize("kind", ["graph", "directed"])
def test_graph_convolutions_are_those_of_dense_matrices(bags, kind):
    """D^(-1/2) (A + I) D^(-1/2) X W by loops over rows, neighbours by sorting distances."""
    model = MODELS[kind]().double().eval()
    for i, bag in enumerate(bags):
        links = torch.eye(len(bag), dtype=torch.float64)
        for row in range(len(bag)):
            distances = ((bag - bag[row]) ** 2).sum(1)
            others = [other for other in distances.argsort().tolist() if other != row][:2]
            links[row, others] = 1  # row receives from its neighbours
        if kind == "graph":
            links = torch.maximum(links, links.T)
        scale = links.sum(1).rsqrt()
        hidden = bag
        for step in range(3):
            hidden = (scale[:, None] * links * scale) @ (hidden @ model.weights[step].weight.T) + model.biases[step]
            hidden = hidden.relu() if step < 2 else hidden
        expected = hidden.mean(0) @ model.head.weight[0] + model.head.bias[0]
        torch.testing.assert_close(model(bags)[i], expected)


def test_links_stay_in_the_bag_and_come_once(bags):
    source, target = nearest_links(bags, 2)
    assert torch.equal(bags.ids[source], bags.ids[target])
    pairs = list(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert {(b, a) for a, b in pairs} == set(pairs)


def test_recall_is_that_of_each_bag_by_itself(bags):
    model = MODELS["association"]().double().eval()
    for i, bag in enumerate(bags):
        stored = model.embedding(bag)
        state = stored
        for _ in range(2):
            state = torch.softmax(0.25 * state @ stored.T, 1) @ stored
        expected = model.head(model.pooling(RaggedBags.from_list([state])).vectors)[0, 0]
        torch.testing.assert_close(model(bags)[i], expected)


def test_monotone_model_is_a_soft_or_of_soft_ands(bags):
    model = MODELS["MonotoneMIL"]().double()
    model.bias.data.fill_(0.7)
    for i, bag in enumerate(bags):
        present = model.concepts(bag).max(0).values.reshape(4, 2)
        # -log(sum exp(-p)) of two, then log(sum exp) of four, by hand.
        both = -torch.log(torch.exp(-present).sum(1))
        torch.testing.assert_close(model(bags)[i], 0.7 + torch.log(torch.exp(both).sum()))


@pytest.mark.parametrize("kind", RESPECTING)
def test_nothing_that_is_inserted_lowers_a_model_that_respects_the_assumption(kind):
    """10,000 insertions of poison, of values up to a thousand, of duplicates: to 1e-6, float64's rounding."""
    data = make_single_concept(200, "test", 5, generator=0)
    bags = RaggedBags(data.bags.values.double(), data.bags.offsets)
    source = torch.Generator().manual_seed(0)
    extreme = torch.randn(100, 5, generator=source, dtype=torch.float64).sign() * 1e3
    probes = torch.cat([bags.values, extreme, torch.full((50, 5), -10.0, dtype=torch.float64)])
    found = monotonicity_probe(MODELS[kind]().double(), bags, probes, n=10_000)
    assert found.largest_drop <= 1e-6
    assert len(found.drops) == 10_000
    again = bags[0].repeat(2, 1)
    model = MODELS[kind]().double().eval()
    torch.testing.assert_close(model(RaggedBags.from_list([again])), model(RaggedBags.from_list([bags[0]])))


def test_a_trained_violator_is_caught_with_a_witness():
    data = [make_single_concept(300, split, generator=0) for split in ("train", "test")]
    row, model = run_unit_test(MINet, *data, n_epochs=4, scale=False)
    poison = torch.full((1, 16), -10.0)
    found = monotonicity_probe(model, data[1].bags, poison, n=200)
    assert row.verdict == "FAIL"
    assert found.largest_drop > 1
    assert found.largest_drop == found.drops[0]
    bag = data[1].bags[int(found.bags[0])]
    before, after = (model(RaggedBags.from_list([rows])) for rows in (bag, torch.cat([bag, poison])))
    torch.testing.assert_close((before - after).detach()[0], found.drops[0])
    assert 0 <= found.mean_drop <= found.largest_drop


@pytest.mark.parametrize("head", ["rules", "network"])
def test_an_encoder_of_ones_own_is_repaired(head):
    encoder = nn.Sequential(nn.Linear(7, 5), nn.Tanh())
    model = MonotoneMIL(5, head=head, encoder=encoder, generator=0)
    bags = RaggedBags.from_list([torch.randn(size, 7, generator=torch.Generator().manual_seed(1)) for size in (3, 2)])
    assert monotonicity_probe(model, bags, n=100).largest_drop <= 1e-6
    rows, mask = bags.padded()
    torch.testing.assert_close(model(rows, mask), model(bags))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: MINet(0), "in_features"),
        (lambda: MINet(4, pooling="sum"), "pooling"),
        (lambda: MINet(4, dropout=1.0), "dropout"),
        (lambda: AttentionMIL(4, attention="other"), "attention"),
        (lambda: TransformerMIL(4, 10, n_heads=3), "n_heads"),
        (lambda: GraphMIL(4, n_neighbours=0), "n_neighbours"),
        (lambda: GraphMIL(4, dropout=float("nan")), "dropout"),
        (lambda: HopfieldMIL(4, association_steps=4), "association_steps"),
        (lambda: HopfieldMIL(4, scaling=0.0), "scaling"),
        (lambda: MonotoneMIL(4, 0), "n_rules"),
        (lambda: MonotoneMIL(4, head="other"), "head"),
        (lambda: miNet(4)(RaggedBags.from_list([torch.zeros(2, 3)])), "bags"),
        (lambda: miNet(4)(torch.zeros(2, 3, 4), torch.ones(2, 2, dtype=torch.bool)), "mask"),
        (lambda: miNet(4)(RaggedBags(torch.zeros(2, 4), torch.tensor([0, 2, 2]))), "empty"),
        (lambda: monotonicity_probe(miNet(4), RaggedBags.from_list([torch.zeros(2, 4)]), n=0), "n must"),
        (lambda: monotonicity_probe(miNet(4), RaggedBags.from_list([torch.full((2, 4), torch.nan)])), "bags"),
        (lambda: SIL(C=-1.0).fit([np.zeros((1, 2))] * 2, [0, 1]), "C must"),
        (lambda: MiSVM(max_iter=0).fit([np.zeros((1, 2))] * 2, [0, 1]), "max_iter"),
        (lambda: MISVM(max_iter=True).fit([np.zeros((1, 2))] * 2, [0, 1]), "max_iter"),
        (lambda: miNet(4)(RaggedBags.from_list([torch.tensor([[0.0, 1.0, torch.nan, 2.0]])])), "bags must be finite"),
        (lambda: NSK(kernel="cubic").fit([np.zeros((1, 2))] * 2, [0, 1]), "kernel"),
        (lambda: STK().fit([np.zeros((1, 2))] * 2, [1, 1]), "y must"),
        (lambda: STK().fit([np.zeros((1, 2)), np.zeros((1, 3))], [0, 1]), "bags"),
        (lambda: STK().fit([np.full((1, 2), np.nan)] * 2, [0, 1]), "bags"),
    ],
)
def test_what_cannot_be_is_refused(make, argument):
    with pytest.raises((ValueError, TypeError), match=argument):
        make()


@pytest.fixture
def arrays():
    source = np.random.default_rng(0)
    bags = [source.normal(size=(size, 3)) for size in source.integers(1, 6, size=40)]
    y = np.array([int(bag[:, 0].max() > 0.8) for bag in bags])
    return bags, y


def test_single_instance_machine_is_that_of_scikit_learn(arrays):
    bags, y = arrays
    machine = SVC(C=2.0, kernel="linear").fit(np.concatenate(bags), np.repeat(y, [len(bag) for bag in bags]))
    expected = [machine.decision_function(bag).max() for bag in bags]
    np.testing.assert_allclose(SIL(C=2.0).fit(bags, y).decision_function(bags), expected, atol=1e-9)


def test_bag_kernels_are_sums_over_pairs(arrays):
    """Entry by entry with Python loops, then scikit-learn's machine on the matrix, which stops within 1e-3."""
    bags, y = arrays

    def kernel(a, b, kind):
        return sum(x @ z if kind == "linear" else np.exp(-0.1 * ((x - z) ** 2).sum()) for x in a for z in b)

    for kind in ("linear", "rbf"):
        norms = [kernel(bag, bag, kind) ** 0.5 for bag in bags]
        pairs = [
            [kernel(a, b, kind) / (u * v) for b, v in zip(bags, norms, strict=True)]
            for a, u in zip(bags, norms, strict=True)
        ]
        machine = SVC(kernel="precomputed").fit(pairs, y)
        found = NSK(kernel=kind).fit(bags, y).decision_function(bags)
        np.testing.assert_allclose(found, machine.decision_function(pairs), atol=5e-3)


def test_statistics_are_the_smallest_and_the_largest(arrays):
    bags, y = arrays
    table = np.array([[*bag.min(0), *bag.max(0)] for bag in bags])
    expected = SVC(kernel="rbf", gamma=0.3).fit(table, y).decision_function(table)
    found = STK(kernel="rbf", gamma=0.3).fit(bags, y).decision_function(bags)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_guesses_of_mi_svm_stay_when_it_stops(arrays):
    """What it ends with is a fixed point: its own labels, with a positive row in every positive bag, train it again."""
    bags, y = arrays
    model = MiSVM().fit(bags, y)
    assert model.converged_
    labels = []
    for bag, label in zip(bags, y, strict=True):
        scores = model.machine_.decision_function(bag)
        guessed = (scores > 0) & (label == 1)
        guessed[scores.argmax()] |= label == 1
        labels.append(guessed)
    again = SVC(kernel="linear").fit(np.concatenate(bags), np.concatenate(labels).astype(int))
    np.testing.assert_allclose(again.coef_, model.machine_.coef_, atol=1e-9)
    assert (model.predict(bags) == (model.decision_function(bags) > 0)).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_witnesses_of_mi_svm_by_bags_stay_when_it_stops(arrays, kernel):
    """A loop by hand from the means of positive bags: the same machine after as many rounds, and a fixed point."""
    bags, y = arrays
    model = MISVM(kernel=kernel, gamma=0.3).fit(bags, y)
    assert model.converged_
    assert 1 < model.n_iter_ < 20
    negative = np.concatenate([bag for bag, label in zip(bags, y, strict=True) if label == 0])
    positive = [bag for bag, label in zip(bags, y, strict=True) if label == 1]
    witnesses = [bag.mean(0) for bag in positive]
    labels = [0] * len(negative) + [1] * len(positive)
    for _ in range(model.n_iter_):
        machine = SVC(kernel=kernel, gamma=0.3).fit(np.concatenate([negative, witnesses]), labels)
        before, witnesses = witnesses, [bag[machine.decision_function(bag).argmax()] for bag in positive]
    np.testing.assert_array_equal(before, witnesses)
    expected = [machine.decision_function(bag).max() for bag in bags]
    np.testing.assert_allclose(model.decision_function(bags), expected, atol=1e-9)
    assert not MISVM(kernel=kernel, gamma=0.3, max_iter=1).fit(bags, y).converged_
