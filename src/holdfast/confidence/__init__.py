"""How stubborn a language model is and how easily swayed: trials of a two-stage design, and what they say.

Without the network: the record of trials, simulated observers with known parameters, estimators with intervals,
diagnostics, and a method for applications that let a model reconsider (arXiv 2507.03120).
"""
