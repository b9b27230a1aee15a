"""Write a run as JUnit's XML, one test case per objective, for CI to show."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from tabserve_loadtest.document import Document, Section
from tabserve_loadtest.verdict import Judgement, Verdict


def encode(document: Document) -> bytes:
    """The XML: a broken objective is a failure, one that is undecided or can't be trusted an error."""
    root = Xml.Element("testsuites", name=document.title)
    for section in document.sections:
        root.append(_suite(section))
    Xml.indent(root)
    encoded: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded + b"\n"


def _suite(section: Section) -> Xml.Element:
    findings = section.findings
    failures = sum(finding.verdict is Verdict.FAIL for finding in findings)
    errors = sum(finding.verdict in (Verdict.TOO_FEW, Verdict.INVALID) for finding in findings)
    counts: dict[str, str] = {"tests": str(len(findings)), "failures": str(failures), "errors": str(errors)}
    suite = Xml.Element("testsuite", {"name": section.scenario, **counts})
    for finding in findings:
        suite.append(_case(section.scenario, finding))
    return suite


def _case(scenario: str, finding: Judgement) -> Xml.Element:
    case = Xml.Element("testcase", classname=f"loadtest.{scenario}", name=finding.objective)
    if finding.verdict is Verdict.PASS:
        Xml.SubElement(case, "system-out").text = finding.measured
    else:
        kind = "failure" if finding.verdict is Verdict.FAIL else "error"
        Xml.SubElement(case, kind, type=finding.verdict.value, message=finding.measured)
    return case
