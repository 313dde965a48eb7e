"""Policies that are trained offline on trajectories of many domains, and act at a fixed cost per step."""
