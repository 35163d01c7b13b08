from .convnet import ConvNet as ConvNet
from .evaluation import accuracy as accuracy
from .evaluation import cross_entropy as cross_entropy
from .evaluation import evaluate as evaluate
from .evaluation import mean_squared_error as mean_squared_error
from .evaluation import predict as predict
from .mlp import MLP as MLP
from .resnet import ResNet as ResNet
from .sets import DeepSets as DeepSets
from .sets import SetTransformer as SetTransformer
from .training import Step as Step
from .training import TrainingHistory as TrainingHistory
from .training import train as train
from .transformer import TransformerEncoder as TransformerEncoder

__all__ = [
    "MLP",
    "ConvNet",
    "DeepSets",
    "ResNet",
    "SetTransformer",
    "Step",
    "TrainingHistory",
    "TransformerEncoder",
    "accuracy",
    "cross_entropy",
    "evaluate",
    "mean_squared_error",
    "predict",
    "train",
]
