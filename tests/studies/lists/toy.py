"""The study of list functions at toy size."""

from __future__ import annotations

from holdfast.studies.lists.classes import ClassesConfig
from holdfast.studies.lists.exact import ExactConfig
from holdfast.studies.lists.neural.part import NeuralConfig
from holdfast.studies.lists.robust import RobustConfig
from holdfast.studies.lists.study import ListsConfig

SMALL = NeuralConfig(
    values=64,
    longest=3,
    width=16,
    layers=1,
    heads=2,
    steps=3,
    side_steps=2,
    batch=8,
    lengths=(3, 6, 8, 10, 30),
    lists=3,
    votes=(1, 3),
    vote_lengths=(8, 10),
    pairs_longest=10,
    votes_longest=8,
    probe_lengths=(2, 3, 4),
    probe_lists=4,
    pair_lists=4,
    refusal_lists=2,
    comparator_lists=300,
    comparator_steps=20,
    comparator_length=40,
)
TOY = ListsConfig(
    seeds=2,
    neural_seeds=1,
    classes=ClassesConfig(natural=3, order_natural=2, values=3, face_values=(3, 4), longest=4),
    exact=ExactConfig(lists=1, longest_distinct=14, sizes=(16, 64)),
    robust=RobustConfig(sizes=(8, 64), lists=4),
    neural=SMALL,
)
