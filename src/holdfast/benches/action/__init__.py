"""Benches of action models: the server, the backbones alone in steps of control, and whole windows of training."""
