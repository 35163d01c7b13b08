"""Any network trained on bag means, and the choice of the interpolation by held-out bags."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.optim import Optimizer

from offprint.methods.bags.aggregate import Loss, align_bags, bag_loss, check_rho, interpolating_loss
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.evaluation import predict
from offprint.models.training import TrainingHistory, train

BagMeans = ArrayLike | Tensor | Mapping[Any, Any]


class AggregateNet(RegressorMixin, BaseEstimator):
    """Your own network, trained on rows of which only the mean response of each bag is known.

    Minimises :func:`interpolating_loss` by gradient steps over batches of whole bags.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to predictions of shape (rows,), (rows, 1) or (rows, outputs), on the scale on which labels were
        averaged: for ``loss="log"`` it ends in a sigmoid. It is copied, never changed.
    rho : float
        Interpolation in [0, 1]: 0 is the bag loss, 1 the instance loss.
    loss : {"squared", "log"} or callable
        As for :func:`bag_loss`.
    n_epochs : int
        Passes over the bags, at least 1.
    bags_per_batch : int or None
        Whole bags per step, at least 1; ``None`` takes all at once.
    learning_rate, weight_decay : float
        Of AdamW.
    optimizer : callable, optional
        Takes the list of parameters and returns a torch optimizer, in place of AdamW.
    validation_fraction : float
        Share of bags, in [0, 1), held out to keep the weights of the epoch with the lowest bag loss on them.
    patience : int, optional
        With ``validation_fraction``, stop after this many epochs without a new lowest bag loss.
    device : torch.device or str, optional
        Where to train and predict; by default where the module is.
    random_state : int
        Seed for the order of bags, for held-out bags and for layers that draw.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained copy, in evaluation mode.
    history_ : TrainingHistory
        Losses by epoch, and when training stopped.
    n_bags_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, bags and responses do not match, or anything is not finite.
    TypeError
        From ``fit``, when ``module`` is no module.
    FloatingPointError
        From ``fit``, when the loss becomes infinite or NaN.

    Notes
    -----
    One epoch costs a forward and backward pass over all rows; sizes of bags may differ, nothing is padded.

    Examples
    --------
    >>> X = torch.linspace(-1, 1, 40)[:, None]
    >>> bag_ids = torch.arange(40) % 20
    >>> bags = RaggedBags.from_ids(3 * X + 1, bag_ids)
    >>> targets = torch.stack([bag.mean() for bag in bags])
    >>> _ = torch.manual_seed(0)
    >>> net = AggregateNet(nn.Linear(1, 1), rho=0.0, n_epochs=80, learning_rate=0.3).fit(X, bag_ids, targets)
    >>> net.predict(torch.tensor([[0.0], [1.0]])).round(1)
    array([1., 4.], dtype=float32)

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, *Learning from Aggregate responses: Instance Level versus Bag Level
    Loss Functions*, arXiv:2401.11081, the experiments with networks.
    """

    def __init__(
        self,
        module: nn.Module,
        rho: float = 0.5,
        *,
        loss: Loss = "squared",
        n_epochs: int = 100,
        bags_per_batch: int | None = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        device: torch.device | str | None = None,
        random_state: int = 0,
    ) -> None:
        self.module = module
        self.rho = rho
        self.loss = loss
        self.n_epochs = n_epochs
        self.bags_per_batch = bags_per_batch
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike | Tensor, bag_ids: ArrayLike | Tensor, bag_means: BagMeans) -> AggregateNet:
        """Fit to rows, the bag of each row, and the mean response of each bag.

        Parameters
        ----------
        X : array or tensor, shape (n, ...)
            Floats are converted to the module's dtype, integers are passed as they are.
        bag_ids : array or tensor of int or str, shape (n,)
        bag_means : array or tensor of shape (bags,) or shape (bags, outputs) in the sorted order of the distinct ids,
            or mapping from id to response

        Returns
        -------
        self
        """
        check_rho(self.rho)
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module; got {type(self.module).__name__}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1); got {self.validation_fraction}")
        if self.bags_per_batch is not None and self.bags_per_batch < 1:
            raise ValueError(f"bags_per_batch must be at least 1, or None; got {self.bags_per_batch}")
        self.module_ = copy.deepcopy(self.module)
        rows = _rows(X, self.module_)
        index, means = align_bags(bag_ids, bag_means, len(rows))
        self.n_bags_ = len(means)
        targets = torch.as_tensor(means, dtype=_dtype(self.module_))
        bags = RaggedBags.from_ids(rows, index.ids)
        generator = torch.Generator().manual_seed(self.random_state)
        order = torch.randperm(bags.n_bags, generator=generator)
        n_held_out = round(self.validation_fraction * bags.n_bags)
        if n_held_out == bags.n_bags:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves none of {bags.n_bags} bags to train on"
            )
        held_out, kept = order[:n_held_out], order[n_held_out:]
        validation = [_batch(bags, targets, held_out)] if n_held_out else None
        self.history_ = self._train(
            _Batches(bags, targets, kept, self.bags_per_batch, generator), validation, generator
        )
        return self

    def predict(self, X: ArrayLike | Tensor) -> Float[np.ndarray, "n *outputs"]:
        """Return the prediction for each row, of shape (n,) where the network has one output."""
        check_is_fitted(self)
        output = predict(self.module_, _rows(X, self.module_), device=self.device)
        answer: Float[np.ndarray, "n *outputs"] = _squeeze(output).cpu().numpy()
        return answer

    def _train(self, batches: _Batches, validation: Any, generator: torch.Generator) -> TrainingHistory:
        def objective(module: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            rows, ids, targets = batch
            # Held-out bags are scored by what they reveal, their means, whatever rho the rows are trained with.
            rho = self.rho if module.training else 0.0
            return interpolating_loss(_like(module(rows), targets), ids, targets, rho, self.loss)

        settings: dict[str, Any] = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer is not None:
            settings = {"optimizer": self.optimizer}
        return train(
            self.module_,
            objective,
            batches,
            validation=validation,
            n_epochs=self.n_epochs,
            patience=self.patience,
            generator=generator,
            device=self.device,
            **settings,
        )


class RhoSearchCV(RegressorMixin, BaseEstimator):
    """Choose the interpolation of any estimator by cross-validation over bags, then fit on all of them.

    Held-out bags are scored by bag loss, for which their mean responses suffice: no individual label is needed.

    Parameters
    ----------
    estimator : estimator
        With a parameter ``rho``, ``fit(X, bag_ids, bag_means)`` and ``predict(X)``, such as :class:`AggregateNet`.
    rho_grid : array of float, shape (r,), optional
        Interpolations to choose from; by default 0, 0.1, ..., 1.
    cv : int or scikit-learn splitter
        Folds over bags. An int cuts them in order; pass ``KFold(5, shuffle=True, random_state=0)`` where bags are
        sorted by something that matters.
    loss : {"squared", "log"} or callable
        As for :func:`bag_loss`.

    Attributes
    ----------
    rho_ : float
        The interpolation with the lowest validation error.
    estimator_ : estimator
        Fitted with it on all bags.
    validation_errors_ : array, shape (len(rho_grid),)
        Mean over held-out bags of the bag loss at each.

    Raises
    ------
    ValueError
        From ``fit``, when ``rho_grid`` is empty, bags and responses do not match, or anything is not finite.

    Notes
    -----
    ``len(rho_grid)`` fits a fold and one at the end. For linear models the ``rho_grid`` of
    :class:`AggregateLinearRegression` does the same for the price of one fit a fold.

    Examples
    --------
    >>> from offprint.methods.bags.aggregate_linear import AggregateLinearRegression
    >>> X = np.random.default_rng(0).normal(size=(90, 2))
    >>> bag_ids, bag_means = np.arange(90) // 3, (X @ [1.0, 2.0]).reshape(30, 3).mean(1)
    >>> RhoSearchCV(AggregateLinearRegression(), rho_grid=[0.0, 0.5, 1.0]).fit(X, bag_ids, bag_means).rho_
    0.0

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the experiments.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        rho_grid: ArrayLike | None = None,
        cv: Any = 5,
        loss: Loss = "squared",
    ) -> None:
        self.estimator = estimator
        self.rho_grid = rho_grid
        self.cv = cv
        self.loss = loss

    def fit(self, X: Any, bag_ids: ArrayLike | Tensor, bag_means: BagMeans) -> RhoSearchCV:
        """Search, then fit to rows, the bag of each row, and the mean response of each bag."""
        grid = np.linspace(0, 1, 11) if self.rho_grid is None else np.asarray(self.rho_grid, dtype=np.float64)
        if grid.ndim != 1 or grid.size == 0:
            raise ValueError(f"rho_grid must be a vector of at least one number; got shape {grid.shape}")
        rows = X if isinstance(X, Tensor) or hasattr(X, "tocsr") else np.asarray(X)
        index, targets = align_bags(bag_ids, bag_means, rows.shape[0])
        errors, n_held_out = np.zeros(len(grid)), 0
        for kept, held_out in index.folds(self.cv):
            responses, ids = torch.as_tensor(targets[held_out.bags]), torch.as_tensor(held_out.index.ids)
            for position, rho in enumerate(grid):
                model = clone(self.estimator).set_params(rho=float(rho))
                model.fit(rows[kept.rows], kept.index.ids, targets[kept.bags])
                predictions = torch.as_tensor(model.predict(rows[held_out.rows]), dtype=torch.float64)
                errors[position] += len(responses) * float(bag_loss(predictions, ids, responses, self.loss))
            n_held_out += len(responses)
        self.validation_errors_ = errors / n_held_out
        self.rho_ = float(grid[errors.argmin()])
        self.estimator_ = clone(self.estimator).set_params(rho=self.rho_).fit(rows, index.ids, targets)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "n *outputs"]:
        """Return the predictions of the fitted estimator."""
        check_is_fitted(self)
        answer: Float[np.ndarray, "n *outputs"] = self.estimator_.predict(X)
        return answer


@dataclass
class _Batches:
    """Whole bags in batches, in a new order each time that it is iterated."""

    bags: RaggedBags
    targets: Tensor
    kept: Tensor
    size: int | None
    generator: torch.Generator

    def __len__(self) -> int:
        return -(-len(self.kept) // (self.size or len(self.kept)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order = self.kept[torch.randperm(len(self.kept), generator=self.generator)]
        for chosen in torch.split(order, self.size or len(order)):
            yield _batch(self.bags, self.targets, chosen)


def _batch(bags: RaggedBags, targets: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    picked = bags.take(chosen)
    return picked.values, picked.ids, targets[chosen]


def _rows(X: Any, module: nn.Module) -> Tensor:
    rows = torch.as_tensor(X)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError(f"X must hold at least one row; got shape {tuple(rows.shape)}")
    if not rows.is_floating_point():
        return rows
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("X must be finite; it holds NaN or infinity")
    return rows.to(_dtype(module))


def _dtype(module: nn.Module) -> torch.dtype:
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floats, torch.get_default_dtype())


def _like(output: Tensor, targets: Tensor) -> Tensor:
    return _squeeze(output) if targets.ndim == 1 else output


def _squeeze(output: Tensor) -> Tensor:
    return output.squeeze(1) if output.ndim == 2 and output.shape[1] == 1 else output
