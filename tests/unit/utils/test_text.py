from __future__ import annotations

from tracelet.utils.text import in_a_line


def test_an_error_is_one_line_with_its_class():
    assert "ValueError: a b c" == in_a_line(ValueError("a\n  b\tc "))


def test_a_page_is_cut():
    text = in_a_line(RuntimeError("<html>" * 1000))
    assert (301, "RuntimeError: <html>", "…") == (len(text), text[:20], text[-1])
