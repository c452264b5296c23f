"""Reading a rule's docstring as its manual page: a summary and four sections.

Pure text work; `explain`, the generated docs/rules.md and a test that demands all sections use it.
"""

from __future__ import annotations

HEADINGS = ("Sees", "Means", "Do", "Silent when")


def page(docstring: str) -> tuple[str, dict[str, str]]:
    """Summary and text by heading of a docstring that `inspect.getdoc` has cleaned.

    A heading is a line of its own without indentation that ends with a colon; its text is indented.
    """
    summary: list[str] = []
    sections: dict[str, list[str]] = {}
    current = summary
    for line in docstring.splitlines():
        heading = line.removesuffix(":")
        if line and not line[0].isspace() and line.endswith(":") and heading in HEADINGS:
            current = sections.setdefault(heading, [])
        else:
            current.append(line.strip())
    return _joined(summary), {heading: _joined(lines) for heading, lines in sections.items()}


def _joined(lines: list[str]) -> str:
    """Paragraphs with one space between words, an empty line between paragraphs."""
    paragraphs = "\n".join(lines).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
