"""Which memory is relevant to which query, from feedback, answers and follow-up questions."""
