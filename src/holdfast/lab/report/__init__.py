"""The report: one self-contained HTML page, readable without a network and without JavaScript."""

from holdfast.lab.report.render import Other, Section, render, write_report

__all__ = ["Other", "Section", "render", "write_report"]
