"""One page a study, or several on one page: ``python -m analysis.report [STUDY ...] [--out FILE]``.

The page is one HTML file that asks for nothing outside itself: plotly and DataTables are in it, once,
and its own content security policy forbids every request. Rows come in through ``analysis.table``;
what a section says is made from them, by rule.
"""
