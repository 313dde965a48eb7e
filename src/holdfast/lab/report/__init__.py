"""The report: one self-contained HTML page, readable without a network and without JavaScript."""

from holdfast.lab.report.render import Section, render, write_report

__all__ = ["Section", "render", "write_report"]
