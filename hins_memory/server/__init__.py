"""`hins serve`: a project's encoders behind HTTP, as OpenAI's and TEI's clients speak it.

In: requests with texts and the id of a model. Out: vectors of exactly that version, metrics, and who refused what.
"""

__all__: list[str] = []
