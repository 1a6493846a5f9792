// @ts-check
// An agent's turn, recorded: node agent.mjs http://127.0.0.1:8620 (the key is read from HINS_API_KEY).
import { Hins, HinsError } from "./hins.mjs";

const [url = "http://127.0.0.1:8620"] = process.argv.slice(2);
const hins = new Hins(url, process.env.HINS_API_KEY);
const scope = { user: "ann", run: "monday" };

// What was said, and what the agent made of it.
const turns = [{ id: "turn-1", scope, conversation: "monday", speaker: "Ann", text: "I gave up the cello and play the oboe now." }];
await hins.said(turns);
await hins.remembered({ id: "memory-1", scope, conversation: "monday", speaker: "Ann", text: "Ann plays the oboe.", turn_ids: ["turn-1"] });

// A search of the agent's own memory, and its outcome.
const results = [{ memory_id: "memory-1", text: "Ann plays the oboe.", score: 0.71 }];
const search = await hins.retrieved({ id: "search-1", scope, query: "Which instrument does Ann play?", results, time: 1764450000 });
await hins.answered(search, "The oboe.");
await hins.feedback(search, "memory-1", "POSITIVE");

// The same again is known and recorded once; the id with another content is refused.
const again = await hins.said(turns);
console.log(`recorded ${again.recorded}, known ${again.known}`);
try {
  await hins.retrieved({ id: search, scope, query: "Another question?", results });
} catch (error) {
  if (!(error instanceof HinsError)) throw error;
  console.log(`refused with ${error.status}: ${error.message}`);
}
