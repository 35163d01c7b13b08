from . import mil_unit_tests as mil_unit_tests
from .aggregate import bag_loss as bag_loss
from .aggregate import instance_loss as instance_loss
from .aggregate import interpolating_loss as interpolating_loss
from .aggregate_linear import AggregateLinearRegression as AggregateLinearRegression
from .aggregate_linear import AggregateRegressor as AggregateRegressor
from .aggregate_linear import RhoPath as RhoPath
from .aggregate_linear import rho_path as rho_path
from .aggregate_net import AggregateNet as AggregateNet
from .aggregate_net import RhoSearchCV as RhoSearchCV
from .aggregate_privacy import BagPrivacyReport as BagPrivacyReport
from .aggregate_privacy import assign_bags as assign_bags
from .aggregate_privacy import private_bag_means as private_bag_means
from .aggregate_risk import OptimalBagSize as OptimalBagSize
from .aggregate_risk import OptimalRho as OptimalRho
from .aggregate_risk import Risk as Risk
from .aggregate_risk import asymptotic_risk as asymptotic_risk
from .aggregate_risk import optimal_bag_size as optimal_bag_size
from .aggregate_risk import optimal_rho as optimal_rho
from .aggregate_risk import release_noise as release_noise
from .aggregate_signal import Signal as Signal
from .aggregate_signal import estimate_signal as estimate_signal
from .pooling import AttentionPooling as AttentionPooling
from .pooling import MaxPooling as MaxPooling
from .pooling import MeanPooling as MeanPooling
from .pooling import Pooled as Pooled
from .pooling import QueryPooling as QueryPooling
from .ragged import BagIndex as BagIndex
from .ragged import RaggedBags as RaggedBags
from .ragged import segment_center as segment_center
from .ragged import segment_entropy as segment_entropy
from .ragged import segment_max as segment_max
from .ragged import segment_mean as segment_mean
from .ragged import segment_softmax as segment_softmax
from .ragged import segment_sum as segment_sum

__all__ = [
    "AggregateLinearRegression",
    "AggregateNet",
    "AggregateRegressor",
    "AttentionPooling",
    "BagIndex",
    "BagPrivacyReport",
    "MaxPooling",
    "MeanPooling",
    "OptimalBagSize",
    "OptimalRho",
    "Pooled",
    "QueryPooling",
    "RaggedBags",
    "RhoPath",
    "RhoSearchCV",
    "Risk",
    "Signal",
    "assign_bags",
    "asymptotic_risk",
    "bag_loss",
    "estimate_signal",
    "instance_loss",
    "interpolating_loss",
    "mil_unit_tests",
    "optimal_bag_size",
    "optimal_rho",
    "private_bag_means",
    "release_noise",
    "rho_path",
    "segment_center",
    "segment_entropy",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
]
