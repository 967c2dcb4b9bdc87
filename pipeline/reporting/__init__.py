"""The report: what the other stages wrote, read into one value and rendered as one self-contained page."""

from pipeline.reporting.data import ReportData, ReportPaths, collect
from pipeline.reporting.page import render, write_report
from pipeline.reporting.sections import SECTIONS, Section

__all__ = ["SECTIONS", "ReportData", "ReportPaths", "Section", "collect", "render", "write_report"]
