"""What a bench run found, for people: one page of HTML, and two tables of Markdown for a pull request."""

from bench.report.markdown import markdown
from bench.report.page import page
from bench.report.summaries import LOST

__all__ = ["LOST", "markdown", "page"]
