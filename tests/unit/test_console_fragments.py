"""Fragments of a page: which are sent when values, rows or containers change."""

from __future__ import annotations

import pytest

from clusterer.console.fragments import fragments_of


def page(*rows: tuple[int, str], title: str = "") -> str:
    cells = "".join(f'<tr id="node-{n}" data-live><td>{text}</td></tr>' for n, text in rows)
    return (
        f'<main><h1 id="title" data-live class="x">{title}</h1>'
        f'<table><tbody data-live id="nodes">{cells}</tbody></table><p>static</p></main>'
    )


def changed(before: str, after: str) -> dict[str, str]:
    return fragments_of(after).changed_since(fragments_of(before).marks)


def test_fragments_without_a_change_send_nothing() -> None:
    assert changed(page((1, "up")), page((1, "up"))) == {}


def test_fragments_changed_row_is_sent_alone() -> None:
    found = changed(page((1, "up"), (2, "up")), page((1, "up"), (2, "down")))
    assert found == {"node-2": '<tr id="node-2" data-live><td>down</td></tr>'}


def test_fragments_new_row_sends_the_container() -> None:
    found = changed(page((1, "up")), page((1, "down"), (2, "up")))
    assert list(found) == ["nodes"]
    assert found["nodes"].startswith('<tbody data-live id="nodes">')
    assert found["nodes"].endswith("</tbody>")


def test_fragments_removed_row_sends_the_container() -> None:
    assert list(changed(page((1, "up"), (2, "up")), page((1, "up")))) == ["nodes"]


def test_fragments_reordered_rows_send_the_container() -> None:
    assert list(changed(page((1, "a"), (2, "b")), page((2, "b"), (1, "a")))) == ["nodes"]


def test_fragments_static_text_is_not_sent() -> None:
    assert changed(page(), page().replace("static", "other")) == {}


def test_fragments_outermost_leave_out_inner_ones() -> None:
    assert list(fragments_of(page((1, "up"))).outermost()) == ["title", "nodes"]


def test_fragments_same_element_inside_is_passed_over() -> None:
    html = '<div id="a" data-live><div>1<div>2</div></div></div><div>3</div>'
    assert fragments_of(html).outermost() == {"a": html.removesuffix("<div>3</div>")}


@pytest.mark.parametrize("text", ["data-live", 'title="data-live" ', "data-live id=&#34;x&#34;"])
def test_fragments_mark_in_a_value_is_no_mark(text: str) -> None:
    html = f'<p id="a" title="{text.replace(chr(34), "&#34;")}">{text}</p>'
    assert fragments_of(html).marks == {}


@pytest.mark.parametrize(
    "html", ['<p id="a" data-live></p><p id="a" data-live></p>', '<p id="a" data-live>']
)
def test_fragments_ambiguous_page_is_refused(html: str) -> None:
    with pytest.raises(ValueError, match=r"two fragments|does not end"):
        fragments_of(html)
