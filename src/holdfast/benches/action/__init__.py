"""Benches of action models: the backbones alone, in steps of control and over whole windows of training."""
