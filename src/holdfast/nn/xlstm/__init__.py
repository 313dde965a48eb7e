"""xLSTM: recurrences with exponential gates and a state of constant size."""

from holdfast.nn.xlstm.call import Memory
from holdfast.nn.xlstm.convert import xlstm_from_nxai
from holdfast.nn.xlstm.mlstm import mlstm
from holdfast.nn.xlstm.mlstm_mixer import MLSTM, MLSTMState
from holdfast.nn.xlstm.slstm_mixer import SLSTM, SLSTMState
from holdfast.nn.xlstm.stack import XLSTM, XLSTM_SIZES, XLSTMConfig

__all__ = [
    "MLSTM",
    "SLSTM",
    "XLSTM",
    "XLSTM_SIZES",
    "MLSTMState",
    "Memory",
    "SLSTMState",
    "XLSTMConfig",
    "mlstm",
    "xlstm_from_nxai",
]
