"""A small invented corpus in the persona chats' format."""

import csv
from pathlib import Path

TALKS = (
    (
        "I have two dogs.\nI work as a nurse.",
        "I like to paint.\nI am from Chile.",
        "User 1: Hi! I have two dogs named Rex and Bo.\n"
        "User 2: That's cool. I like to paint landscapes with my sister.\n"
        "User 1: I work as a nurse at a small hospital. What do you do?\n"
        "User 2: I'm a teacher. I went to Peru with my husband.\n"
        "User 1: My favorite food is sushi.\n"
        "User 2: I'm going to run a marathon in Santiago.",
    ),
    (
        "I play the cello.\nI am 40 years old.",
        "I hate broccoli.\nI live on a farm.",
        "User 1: I play the cello in an orchestra.\n"
        "User 2: Wow! I live on a farm near the lake.\n"
        "User 1: I'm 40 years old. My name is [User 1's name].\n"
        "User 2: I hate broccoli. I've been collecting stamps for ten years.\n"
        "User 1: I bought a red truck because the old one broke.",
    ),
)


def write_corpus(path: Path, copies: int = 6) -> Path:
    """Write a corpus of `copies` times two dialogues, each copy of other words."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["user 1 personas", "user 2 personas", "Best Generated Conversation"])
        for copy in range(copies):
            for one, other, talk in TALKS:
                rows.writerow([one, other, talk.replace("two dogs", f"{copy + 2} dogs")])
    return path
