"""The JSON API: the Hub's dialect, its queries, its errors, and the document that describes it."""
