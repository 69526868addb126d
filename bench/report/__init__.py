"""What a bench run found, for people: one page of HTML, and two tables of Markdown for a pull request."""

from bench.report.markdown import markdown
from bench.report.page import page

__all__ = ["markdown", "page"]
