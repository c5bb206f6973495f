"""The data of ``analysis.figures`` drawn for the page: one file a figure, study -> blocks."""
