"""Findings: the causes behind a verdict, one rule to a file, ordered by the time that their remedies would save."""

from workbench.diagnosis.findings.catalogue import RULES, findings
from workbench.diagnosis.findings.finding import Case, Finding

__all__ = ["RULES", "Case", "Finding", "findings"]
