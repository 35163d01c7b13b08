"""Bringing papers in from elsewhere: the text of a daily page, the Hub's JSON, arXiv's dump, and arXiv's API."""
