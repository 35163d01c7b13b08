from . import aem as aem
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
from .gde import GDE as GDE
from .gde_distances import energy_distance as energy_distance
from .gde_distances import mmd_squared as mmd_squared
from .gde_distances import sinkhorn_divergence as sinkhorn_divergence
from .gde_distances import sliced_w2 as sliced_w2
from .gde_encoders import KernelMeanEmbedding as KernelMeanEmbedding
from .gde_encoders import MeanEncoder as MeanEncoder
from .gde_encoders import MeanPoolEncoder as MeanPoolEncoder
from .gde_encoders import ResNetSetEncoder as ResNetSetEncoder
from .gde_encoders import SetTransformerEncoder as SetTransformerEncoder
from .gde_gaussian import gaussian_geodesic as gaussian_geodesic
from .gde_gaussian import gaussian_w2 as gaussian_w2
from .gde_gaussian import gmm_w2 as gmm_w2
from .gde_gaussian import w2_1d as w2_1d
from .gde_generators import CVAEGenerator as CVAEGenerator
from .gde_generators import DDPMGenerator as DDPMGenerator
from .gde_generators import DirectGenerator as DirectGenerator
from .gde_invariance import InvarianceReport as InvarianceReport
from .gde_invariance import check_distributional_invariance as check_distributional_invariance
from .gde_sets import DirichletMixer as DirichletMixer
from .gde_sets import fitted_gaussians as fitted_gaussians
from .inset import SubsetSelector as SubsetSelector
from .inset_confidence import expected_jaccard as expected_jaccard
from .inset_data import jaccard as jaccard
from .inset_mean_field import MeanField as MeanField
from .inset_mean_field import mean_field as mean_field
from .inset_recognition import CopulaRecognition as CopulaRecognition
from .inset_recognition import Proposal as Proposal
from .inset_search import SubsetSearch as SubsetSearch
from .inset_search import search_subsets as search_subsets
from .inset_utility import SetUtility as SetUtility
from .lcm import CommutativeGRU as CommutativeGRU
from .lcm import LCMAggregation as LCMAggregation
from .lcm import commutative as commutative
from .lcm import permutation_gap as permutation_gap
from .lcm_aggregators import GRUAggregation as GRUAggregation
from .lcm_aggregators import PNAAggregation as PNAAggregation
from .lcm_aggregators import ReduceAggregation as ReduceAggregation
from .lcm_fold import MaxMonoid as MaxMonoid
from .lcm_fold import MinMonoid as MinMonoid
from .lcm_fold import SumMonoid as SumMonoid
from .lcm_fold import TwoSmallestMonoid as TwoSmallestMonoid
from .lcm_fold import associative_scan as associative_scan
from .lcm_fold import tree_fold as tree_fold
from .lcm_graph import LCMConv as LCMConv
from .lcm_graph import to_geometric as to_geometric
from .lcm_sets import SetAggregation as SetAggregation
from .llp_bp import LLPBeliefPropagation as LLPBeliefPropagation
from .llp_bp_bags import make_bags as make_bags
from .llp_bp_bags import proportions_from as proportions_from
from .llp_bp_baselines import DLLPClassifier as DLLPClassifier
from .llp_bp_baselines import EasyLLPClassifier as EasyLLPClassifier
from .llp_bp_classifier import LLPBPClassifier as LLPBPClassifier
from .llp_bp_counts import CountFactors as CountFactors
from .llp_bp_graph import SimilarityGraph as SimilarityGraph
from .llp_bp_graph import neighbor_graph as neighbor_graph
from .llp_bp_multiclass import OneVsRestLLPClassifier as OneVsRestLLPClassifier
from .llp_bp_multiclass import OneVsRestPropagation as OneVsRestPropagation
from .llp_bp_multiclass import class_counts_from as class_counts_from
from .llp_bp_network import EmbeddingNet as EmbeddingNet
from .llp_bp_network import fit_best as fit_best
from .llp_bp_propagation import Propagation as Propagation
from .llp_bp_propagation import belief_propagation as belief_propagation
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
from .wormhole import Wormhole as Wormhole

__all__ = [
    "GDE",
    "AggregateLinearRegression",
    "AggregateNet",
    "AggregateRegressor",
    "AttentionPooling",
    "BagIndex",
    "BagPrivacyReport",
    "CVAEGenerator",
    "CommutativeGRU",
    "CopulaRecognition",
    "CountFactors",
    "DDPMGenerator",
    "DLLPClassifier",
    "DirectGenerator",
    "DirichletMixer",
    "EasyLLPClassifier",
    "EmbeddingNet",
    "GRUAggregation",
    "InvarianceReport",
    "KernelMeanEmbedding",
    "LCMAggregation",
    "LCMConv",
    "LLPBPClassifier",
    "LLPBeliefPropagation",
    "MaxMonoid",
    "MaxPooling",
    "MeanEncoder",
    "MeanField",
    "MeanPoolEncoder",
    "MeanPooling",
    "MinMonoid",
    "OneVsRestLLPClassifier",
    "OneVsRestPropagation",
    "OptimalBagSize",
    "OptimalRho",
    "PNAAggregation",
    "Pooled",
    "Propagation",
    "Proposal",
    "QueryPooling",
    "RaggedBags",
    "ReduceAggregation",
    "ResNetSetEncoder",
    "RhoPath",
    "RhoSearchCV",
    "Risk",
    "SetAggregation",
    "SetTransformerEncoder",
    "SetUtility",
    "Signal",
    "SimilarityGraph",
    "SubsetSearch",
    "SubsetSelector",
    "SumMonoid",
    "TwoSmallestMonoid",
    "Wormhole",
    "aem",
    "assign_bags",
    "associative_scan",
    "asymptotic_risk",
    "bag_loss",
    "belief_propagation",
    "check_distributional_invariance",
    "class_counts_from",
    "commutative",
    "energy_distance",
    "estimate_signal",
    "expected_jaccard",
    "fit_best",
    "fitted_gaussians",
    "gaussian_geodesic",
    "gaussian_w2",
    "gmm_w2",
    "instance_loss",
    "interpolating_loss",
    "jaccard",
    "make_bags",
    "mean_field",
    "mmd_squared",
    "neighbor_graph",
    "optimal_bag_size",
    "optimal_rho",
    "permutation_gap",
    "private_bag_means",
    "proportions_from",
    "release_noise",
    "rho_path",
    "search_subsets",
    "segment_center",
    "segment_entropy",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "sinkhorn_divergence",
    "sliced_w2",
    "to_geometric",
    "tree_fold",
    "w2_1d",
]
