"""HTML and SVG elements whose text is escaped unless it is markup already."""

from __future__ import annotations

from html import escape


class Html(str):
    """Text that is markup: it goes into an element as it is."""


Child = str | Html | None


def element(tag: str, *children: Child, **attributes: str | float | None) -> Html:
    """``element("td", name, class_="number")``: a trailing underscore is dropped, an inner one becomes a hyphen.

    None children and None attributes are left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    return Html("".join(_child(child) for child in children if child is not None))


def table(header: list[str], rows: list[list[Child]], *, numeric: bool = False, css: str | None = None) -> Html:
    """A table that scrolls sideways in a narrow window; ``numeric`` aligns all but the first column right."""
    side = "number" if numeric else None
    head = [element("th", text, scope="col", class_=side if place else None) for place, text in enumerate(header)]
    body = [
        element("tr", *(element("td", cell, class_=side if place else None) for place, cell in enumerate(row)))
        for row in rows
    ]
    inner = join(element("thead", element("tr", *head)) if any(header) else None, element("tbody", *body))
    return element("div", element("table", inner, class_=css), class_="scroll")


def _child(child: str) -> str:
    return child if isinstance(child, Html) else escape(child)


def _text(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
