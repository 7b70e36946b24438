"""Turns results into pages, tables, figures and text. Start with `page`."""
