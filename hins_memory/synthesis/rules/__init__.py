"""Conversations and questions by rules, without a language model."""
