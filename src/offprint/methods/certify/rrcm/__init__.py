"""Representations that stay the same along a noise trajectory, and classifiers for smoothing that start from them.

What a user imports: :class:`ConsistencyPretrainer` (labels are not needed), :func:`finetune_smoothing` and the
:class:`NoisyClassifier` it returns, ready for :class:`.SmoothedClassifier`; the parts they are made of
(:class:`KarrasSchedule`, :func:`ema_rate`, :func:`info_nce`, :func:`contrastive_loss`, :func:`trajectory_loss`,
:func:`consistency_regularized_loss`, :func:`layerwise_groups`); and two encoders, :class:`ResidualEncoder` and
:class:`PatchEncoder`, for those who bring none of their own.
"""

from offprint.methods.certify.rrcm.encoders import Encoder, PatchEncoder, ResidualEncoder, noise_features
from offprint.methods.certify.rrcm.finetune import (
    FineTuned,
    NoisyClassifier,
    consistency_regularized_loss,
    finetune_smoothing,
    layerwise_groups,
)
from offprint.methods.certify.rrcm.losses import contrastive_loss, info_nce, trajectory_loss
from offprint.methods.certify.rrcm.pretrain import ConsistencyPretrainer
from offprint.methods.certify.rrcm.schedule import KarrasSchedule, ema_rate, warmup_cosine

__all__ = [
    "ConsistencyPretrainer",
    "Encoder",
    "FineTuned",
    "KarrasSchedule",
    "NoisyClassifier",
    "PatchEncoder",
    "ResidualEncoder",
    "consistency_regularized_loss",
    "contrastive_loss",
    "ema_rate",
    "finetune_smoothing",
    "info_nce",
    "layerwise_groups",
    "noise_features",
    "trajectory_loss",
    "warmup_cosine",
]
