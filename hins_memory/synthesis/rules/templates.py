"""Wordings of questions that no grammar gives: what people ask for when they mean a job, a hobby or a taste."""

from __future__ import annotations

__all__ = ["OWN_TEMPLATES", "TEMPLATES"]

#: Occasion -> wordings; ``{who}`` is the person, the other fields are what the occasion has.
TEMPLATES = {
    "favorite": (
        "What {sort} does {who} like the most?",
        "Which {sort} would {who} choose?",
        "What kind of {sort} is {who} into?",
        "Would {who} enjoy {thing}?",
        "What {sort} should I recommend to {who}?",
    ),
    "origin": ("Where is {who} from?", "Where did {who} grow up?", "What is {who}'s hometown?"),
    "job": (
        "What does {who} do for a living?",
        "What is {who}'s job?",
        "What is {who}'s profession?",
        "Where does {who} work?",
        "What career does {who} have?",
        "What kind of work does {who} do?",
    ),
    "self": ("What kind of person is {who}?", "How would {who} describe {oneself}?", "What is {who}?"),
    "named": ("What is the name of {who}'s {thing}?", "What is {who}'s {thing} called?"),
    "future": (
        "What does {who} want to do in the future?",
        "What are {who}'s plans?",
        "What is {who}'s dream?",
        "What goal does {who} have?",
    ),
    "dislike": ("What does {who} dislike?", "What does {who} not like?", "What should {who} avoid?"),
    "hobby": (
        "What does {who} like to do?",
        "What are {who}'s hobbies?",
        "What does {who} do for fun?",
        "What does {who} enjoy in {whose} free time?",
        "What activity would {who} like to do on the weekend?",
        "How does {who} relax?",
        "What would {who} like to do?",
        "What are {who}'s interests?",
    ),
    "taste": (
        "What does {who} like?",
        "What is {who} a fan of?",
        "What is something {who} loves?",
        "What would {who} like as a gift?",
    ),
    "doing": (
        "Does {who} like {thing}?",
        "Is {who} interested in {thing}?",
        "How does {who} feel about {thing}?",
        "Why does {who} like {thing}?",
    ),
    "thing": (
        "Would {who} enjoy {thing}?",
        "Does {who} like {thing}?",
        "How does {who} feel about {thing}?",
        "Would {thing} be a good choice for {who}?",
        "What does {who} think of {thing}?",
    ),
    "past": ("What did {who} do{time}?", "What happened to {who}{time}?", "How did {who} {verb} {thing}?"),
    "coming": ("What is {who} going to do{time}?", "What are {who}'s plans{time}?", "What is {who} working on?"),
    "class": ("What {sort} {head}{after}?", "Which {sort} {head}?", "What kind of {sort} {head}?"),
    "about": (
        "What {sort} does {who} talk about?",
        "Tell me about {who}'s {sort}.",
        "What do we know about {who} and {thing}?",
        "{who} {sort}",
    ),
}

#: Wordings of preferences that a person asks for themself, as users do of their own agent.
OWN_TEMPLATES = {
    "favorite": (
        "What {sort} would I like?",
        "Which {sort} should I choose?",
        "What kind of {sort} suits me?",
        "Recommend me a {sort}.",
    ),
    "dislike": ("What should I avoid?", "What would I not like?", "What is not my thing?"),
    "hobby": (
        "What could I do on the weekend?",
        "What would I enjoy doing?",
        "How could I relax tonight?",
        "What should I do in my free time?",
    ),
    "taste": ("What would I like as a gift?", "What would please me?", "What would I enjoy?"),
    "doing": ("Would I like {thing}?", "Is {thing} something for me?", "Should I try {thing}?"),
    "thing": ("Would I enjoy {thing}?", "Would {thing} be a good choice for me?", "Should I get {thing}?"),
}
