"""What is learned: kernel integral, pooling, cross-scale attention, the operator."""

from gno.nn.config import OperatorConfig
from gno.nn.operator import NeuroScale
from gno.nn.output import NoisyOutput, Output

__all__ = ["NeuroScale", "NoisyOutput", "OperatorConfig", "Output"]
