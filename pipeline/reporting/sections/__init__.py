"""The sections of the pages, in order.

A section is a function from `ReportData` to a `Section`; to add one, write it in a module here and name it in
`SECTIONS`, or in `CIRCUMSTANCES` where equal trainings differ in it.
"""

from collections.abc import Callable

from pipeline.reporting.data import ReportData
from pipeline.reporting.sections.collapse import collapse
from pipeline.reporting.sections.compliance import compliance
from pipeline.reporting.sections.content import content
from pipeline.reporting.sections.conversion import conversion
from pipeline.reporting.sections.experts import expert_balance
from pipeline.reporting.sections.headline import headline
from pipeline.reporting.sections.judges import judges
from pipeline.reporting.sections.listen import listen
from pipeline.reporting.sections.metrics import metrics
from pipeline.reporting.sections.provenance import CIRCUMSTANCES_PAGE, circumstances, configuration, data, lineage
from pipeline.reporting.sections.section import Section
from pipeline.reporting.sections.training import speed, training

SECTIONS: tuple[Callable[[ReportData], Section], ...] = (
    headline,
    listen,
    content,
    judges,
    collapse,
    metrics,
    training,
    expert_balance,
    data,
    conversion,
    compliance,
    configuration,
    lineage,
)
CIRCUMSTANCES: tuple[Callable[[ReportData], Section], ...] = (circumstances, speed)

__all__ = ["CIRCUMSTANCES", "CIRCUMSTANCES_PAGE", "SECTIONS", "Section"]
