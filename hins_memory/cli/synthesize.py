"""`hins synthesize`: training data for a project without traffic, by rules or by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Bars, Result, command, note, table
from hins_memory.errors import ConfigError

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.llm import LlmError
    from hins_memory.synthesis import Exclusion, SynthesisReport
    from hins_memory.synthesis.run import Owned

__all__ = ["synthesize"]

_OPENAI = "openai:"


@command
def synthesize(
    context: typer.Context,
    llm: Annotated[
        str, typer.Option("--llm", metavar="none|openai:MODEL", help="What writes: rules, or a language model.")
    ] = "none",
    base_url: Annotated[str, typer.Option("--base-url", help="The endpoint (OPENAI_BASE_URL, else OpenAI's).")] = "",
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", metavar="FILE.csv", help="Persona chats for the rules; else the project's own log."),
    ] = None,
    given: Annotated[
        Path | None, typer.Option("--given", metavar="FILE", help="Personas for the language model; else invented.")
    ] = None,
    personas: Annotated[int, typer.Option("--personas", help="How many people, for the language model.")] = 20,
    conversations: Annotated[
        int | None, typer.Option("--conversations", help="How many; else all that the corpus gives, or 20.")
    ] = None,
    questions: Annotated[int, typer.Option("--questions", help="How many questions by rules; 0 keeps all.")] = 4000,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", metavar="FILE", help="Text of an evaluation: its names and wordings are kept out."),
    ] = None,
    max_requests: Annotated[int, typer.Option("--max-requests", help="Limit of requests; 0 is none.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Limit of tokens; 0 is none.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")] = 0,
) -> Result:
    """Write synthetic conversations into the log, for `hins mine` and `hins train`; continue an interrupted run."""
    from hins_memory.synthesis.filters import Exclusion

    settings = settings_of(context)
    excluded = Exclusion.of_file(exclude) if exclude else Exclusion()
    with Bars() as bars:
        if llm == "none":
            made = _by_rules(settings, corpus or [], excluded, conversations or 0, seed)
            report = _written(settings, made, questions, seed, bars)
        elif llm.startswith(_OPENAI):
            model_settings = _model_settings(personas, conversations, max_requests, seed)
            client = {"model": llm.removeprefix(_OPENAI), "base_url": base_url, "max_total_tokens": max_tokens}
            report = _by_model(settings, client, model_settings, given, excluded, bars)
        else:
            raise ConfigError(f"{llm!r} is not a writer.", "Use --llm none or --llm openai:MODEL.")
    return Result(report.to_dict(), _parts(report))


def _by_rules(
    settings: Settings, corpus: Sequence[Path], exclusion: Exclusion, conversations: int, seed: int
) -> list[Owned]:
    from hins_memory.database.engine import open_database
    from hins_memory.log.reader import LogReader
    from hins_memory.synthesis import RuleSettings, conversations_by_rules, conversations_of_logs, read_corpus

    rules = RuleSettings(seed=seed)
    if corpus:
        return list(conversations_by_rules(read_corpus(corpus), rules, exclusion, conversations))
    logs = LogReader(open_database(settings.database_url)).scope_logs()
    found = list(conversations_of_logs(logs, rules, exclusion))
    return found[:conversations] if conversations else found


def _model_settings(personas: int, conversations: int | None, max_requests: int, seed: int) -> Any:
    from hins_memory.synthesis import ModelSettings

    model_settings = ModelSettings(personas=personas, max_requests=max_requests, seed=seed)
    return model_settings if conversations is None else replace(model_settings, conversations=conversations)


def _by_model(
    settings: Settings,
    client: dict[str, Any],
    model_settings: Any,
    given: Path | None,
    exclusion: Exclusion,
    bars: Bars,
) -> SynthesisReport:
    from hins_memory.llm import ChatClient, LlmSettings
    from hins_memory.synthesis import converse_by_model, read_personas
    from hins_memory.synthesis.run import PER_OWNER
    from hins_memory.types import SYNTHETIC_TENANT, Scope

    people = read_personas(given) if given else []
    problems: dict[str, int] = {}

    def failed(error: LlmError) -> None:
        problems[str(error)] = problems.get(str(error), 0) + 1

    folder = settings.root / "synthesis" / "replies"
    with ChatClient(LlmSettings(**client, cache=folder)) as chat:
        conversations = converse_by_model(chat, model_settings, people, exclusion, failed)
        made = (
            (
                Scope(
                    user=f"synthetic-{client['model']}-{model_settings.seed}-{number // PER_OWNER}",
                    tenant=SYNTHETIC_TENANT,
                ),
                conversation,
            )
            for number, conversation in enumerate(conversations)
        )
        report = _written(settings, made, 0, model_settings.seed, bars)
        usage = chat.usage
    report.source = client["model"]
    report.notes += [f"{count} conversation(s) failed: {problem}" for problem, count in problems.items()]
    report.notes.append(
        f"{usage.requests} requests, {usage.prompt_tokens + usage.completion_tokens} tokens; "
        f"{usage.cached} replies were kept from before."
    )
    if problems:
        note("Run the same command again to go on: what was replied is kept.")
    return report


def _written(settings: Settings, made: Any, questions: int, seed: int, bars: Bars) -> SynthesisReport:
    from hins_memory.database.engine import open_database
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.log.writer import LogWriter
    from hins_memory.synthesis import write_conversations

    writer = LogWriter(open_database(settings.database_url))
    bars.waiting("loading the encoder")
    return write_conversations(made, Encoder.load(), writer.write, questions=questions, seed=seed, progress=bars)


def _parts(report: SynthesisReport) -> tuple[Any, ...]:
    first = (
        f"{report.conversations} conversations by {report.source or 'none'}: {report.turns} turns, {report.memories} "
        f"memories, {report.questions} questions."
    )
    kinds = table(("question", "kept"), list(report.kinds.most_common()))
    dropped = [f"{count} questions left out: {reason}." for reason, count in report.dropped.most_common()]
    return (first, *([kinds] if report.kinds else []), *dropped, *report.notes, "Next: `hins mine`, `hins train`.")
