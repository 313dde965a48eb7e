"""Study of confidence: how stubborn language models are, how easily swayed, and whether the probe can tell."""
