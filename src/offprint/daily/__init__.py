"""The daily page: the papers of a day, what they claim, what was measured, and Run. Needs the extra ``daily``."""
