"""What hosts describe in XML: nothing in it is ever looked up elsewhere."""

from __future__ import annotations

import pytest

from providers_app.drivers import DriverError
from providers_app.drivers.libvirt import xmltext


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE a><a/>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><a>&c;</a>',
        "<a>&b;</a>",
        "<a><b:c/></a>",
        "<a>\0</a>",
        "<a>\udcff</a>",
        "",
    ],
)
def test_document_types_entities_and_broken_texts_are_refused(text: str) -> None:
    with pytest.raises(DriverError, match="makes no sense"):
        xmltext.parse(text)


def test_a_text_that_only_looks_like_a_document_type_is_a_text() -> None:
    assert xmltext.parse("<a><![CDATA[<!DOCTYPE a><!ENTITY b>]]></a>").text == "<!DOCTYPE a><!ENTITY b>"
