"""xLSTM: recurrences with exponential gates and a state of constant size."""

from holdfast.nn.xlstm.call import Memory
from holdfast.nn.xlstm.mlstm import mlstm
from holdfast.nn.xlstm.mlstm_mixer import MLSTM, MLSTMState

__all__ = ["MLSTM", "MLSTMState", "Memory", "mlstm"]
