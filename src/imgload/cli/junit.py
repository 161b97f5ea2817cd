"""Reports as JUnit XML, which CI servers show: a suite for each image, a case for each node."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from imgload.core.errors import ImgloadError
from imgload.loader.report import ImageResult, NodeResult, Report


def junit(report: Report) -> str:
    """Return the document."""
    root = Element("testsuites", name="imgload")
    for image in report.images:
        _suite(root, image)
    return _text(root)


def junit_error(error: ImgloadError) -> str:
    """Return the document of a run that came to no node."""
    root = Element("testsuites", name="imgload")
    suite = SubElement(root, "testsuite", name="imgload", tests="1", errors="1", failures="0")
    case = SubElement(suite, "testcase", classname="imgload", name="verify")
    _tell(SubElement(case, "error"), error)
    return _text(root)


def _suite(root: Element, image: ImageResult) -> None:
    failed = sum(not node.ok for node in image.nodes)
    suite = SubElement(root, "testsuite", name=image.reference, errors="0")
    suite.set("tests", str(len(image.nodes)))
    suite.set("failures", str(failed))
    for node in image.nodes:
        _case(suite, image, node)


def _case(suite: Element, image: ImageResult, node: NodeResult) -> None:
    seconds = f"{node.seconds:.3f}"
    case = SubElement(suite, "testcase", classname=image.reference, name=node.node, time=seconds)
    if node.error:
        _tell(SubElement(case, "failure"), node.error)


def _tell(place: Element, error: ImgloadError) -> None:
    place.set("type", error.kind)
    place.set("message", error.message)
    place.text = f"try: {error.hint}" if error.hint else ""


def _text(root: Element) -> str:
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True)
