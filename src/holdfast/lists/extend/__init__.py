"""Extend a function that is right on short lists to lists of any length, by the rule that it follows."""

from holdfast.lists.extend.answering import Extension
from holdfast.lists.extend.calibration import Calibration
from holdfast.lists.extend.extrapolate import Extended, extrapolate
from holdfast.lists.extend.faces import face_candidates, glue_faces
from holdfast.lists.extend.pairs import PairTable, glue_words
from holdfast.lists.extend.ranking import copeland, kemeny, kemeny_cost, local_search, merge_sort
from holdfast.lists.extend.topk import Top, topk
from holdfast.lists.extend.votes import Ranking, Votes

__all__ = [
    "Calibration",
    "Extended",
    "Extension",
    "PairTable",
    "Ranking",
    "Top",
    "Votes",
    "copeland",
    "extrapolate",
    "face_candidates",
    "glue_faces",
    "glue_words",
    "kemeny",
    "kemeny_cost",
    "local_search",
    "merge_sort",
    "topk",
]
