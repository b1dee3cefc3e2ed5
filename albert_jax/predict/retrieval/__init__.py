"""Search in a collection of documents, and answers from it."""
