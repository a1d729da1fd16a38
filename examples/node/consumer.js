// Keeps a copy of who is enrolled in what: node consumer.js [FILE]
//
// Reads the result events as the consumer group `examples:node`. Killed at any moment, it goes on where it was: what it
// had not acknowledged comes again, and taking an event twice changes nothing.

import { createClient } from "redis";
import { Copy, parse } from "./copy.js";
import { EVENTS_URL, STREAM } from "./settings.js";

const GROUP = "examples:node";
const NAME = "consumer-1"; // the same after a restart; each process that runs at the same time has its own
const IDLE = 60_000; // milliseconds of silence after which another consumer's entries are ours
const COUNT = 500;

/** Events were trimmed before they were read. */
class Missed extends Error {
  message = "Events were trimmed before they were read: delete the group and the copy, and begin anew.";
}

const copy = new Copy(process.argv[2] ?? "copy.json");
const redis = createClient({ url: EVENTS_URL, RESP: 2 });
redis.on("error", (error) => console.error(`Redis is away: ${error.message}`)); // it reconnects by itself
await redis.connect();
await join();

let after = "0"; // first what was handed to us and not acknowledged; then ">", what nobody has been handed
for (;;) {
  const entries = await next();
  if (entries.length === 0) {
    after = ">";
    continue;
  }
  for (const { message } of entries) take(message);
  copy.save(); // before the acknowledgement: what is lost in between comes again
  await redis.xAck(STREAM, GROUP, entries.map(({ id }) => id));
}

async function join() {
  try {
    await redis.xGroupCreate(STREAM, GROUP, "0", { MKSTREAM: true });
  } catch (error) {
    if (!error.message.startsWith("BUSYGROUP")) throw error; // it is there already
  }
}

async function next() {
  try {
    const abandoned = after === ">" ? await claim() : [];
    return abandoned.length > 0 ? abandoned : await read();
  } catch (error) {
    if (error instanceof Missed || error.message.startsWith("NOGROUP")) throw error;
    console.error(`Reading again: ${error.message}`);
    after = "0"; // the answer that was lost may have handed us entries
    await new Promise((resolve) => setTimeout(resolve, 500));
    return next();
  }
}

/** Takes over what consumers of this group held that have been silent for long: they were killed. */
async function claim() {
  const { messages, deletedMessages } = await redis.xAutoClaim(STREAM, GROUP, NAME, IDLE, "0-0", { COUNT });
  if (deletedMessages?.length > 0 || messages.includes(null)) throw new Missed();
  return messages;
}

/** As `redis.xReadGroup`, which breaks on entries that were trimmed: of those Redis gives the id and no fields. */
async function read() {
  const options = ["COUNT", `${COUNT}`, ...(after === ">" ? ["BLOCK", "2000"] : [])];
  const reply = await redis.sendCommand(["XREADGROUP", "GROUP", GROUP, NAME, ...options, "STREAMS", STREAM, after]);
  const [[, entries]] = reply ?? [[STREAM, []]];
  return entries.map(([id, fields]) => {
    if (fields === null) throw new Missed();
    return { id, message: { [fields[0]]: fields[1] } };
  });
}

function take(fields) {
  let event;
  try {
    event = parse(fields.event);
  } catch (error) {
    console.error(`Not an event, left out: ${error.message}`);
    return;
  }
  copy.take(event);
  console.log(`${event.type} ${event.id} ${event.subject ?? ""}`);
}
