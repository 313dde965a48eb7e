"""Whole networks. Import the module you need: `from holdfast.models.max_retrieval import MaxRetrievalNet`."""
