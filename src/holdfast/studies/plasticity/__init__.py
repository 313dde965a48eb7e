"""The study of plasticity: networks that go on learning, and those that no longer can."""
