"""Conversations and questions by a language model."""
