// Sends one command: node producer.js enroll|unenroll|replace STUDENT [COURSE ...] [--id UUID] [--issued-at TIME]
//
// Prints the command's id once Redis has the message. If that cannot be confirmed, it ends with exit code 1 and prints
// how to send the same command again: under the same id and time, which is always safe.

import { parseArgs } from "node:util";
import celery from "celery-node";
import { BROKER_URL } from "./settings.js";
import { now, uuid7 } from "./stamp.js";

const QUEUE = "enrollment";
const TASKS = {
  enroll: "enrollment.enroll.v1",
  unenroll: "enrollment.unenroll.v1",
  replace: "enrollment.replace.v1",
};
const PATIENCE = 5000; // milliseconds

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { id: { type: "string" }, "issued-at": { type: "string" }, source: { type: "string" } },
});
const [command, ...ids] = positionals;
const numbers = ids.map(Number);
if (!(command in TASKS) || numbers.length === 0 || !numbers.every(isId)) {
  console.error("Usage: node producer.js enroll|unenroll|replace STUDENT [COURSE ...] [--id UUID] [--issued-at TIME]");
  process.exit(2);
}
const [student_id, ...course_ids] = numbers;

const commandId = values.id ?? uuid7();
const issuedAt = values["issued-at"] ?? now();
const source = values.source ?? "examples:node";

try {
  await send(TASKS[command], commandId, { student_id, course_ids, issued_at: issuedAt, source });
  console.log(commandId);
} catch (error) {
  console.error(`Redis may not have the message (${error.message}). Send the same command again:`);
  console.error(`  node producer.js ${command} ${ids.join(" ")} --id ${commandId} --issued-at ${issuedAt} --source ${source}`);
  process.exitCode = 1;
}

/**
 * Puts one message on the queue; the promise fulfils when Redis has it, and rejects when that cannot be confirmed.
 *
 * Not with celery-node's `sendTask` or `applyAsync`: they drop the promise of the publication, so no caller can see
 * that it failed, and they wait for a result store, which this worker has none of. The two steps below are what they do.
 */
async function send(task, taskId, kwargs) {
  const client = celery.createClient(BROKER_URL, BROKER_URL, QUEUE);
  client.conf.CELERY_BROKER_OPTIONS = {
    connectTimeout: 2000,
    commandTimeout: PATIENCE,
    maxRetriesPerRequest: 1, // by default a message waits in memory for as long as Redis is away
    retryStrategy: (attempt) => (attempt > 3 ? null : 200 * attempt),
  };
  const { broker } = client;
  broker.redis.on("error", () => {}); // said by the rejections below; without a listener it goes to the console
  try {
    await broker.isReady();
    const { body, headers, properties } = client.createTaskMessage(taskId, task, [], kwargs);
    await broker.publish(body, "", QUEUE, headers, properties);
  } finally {
    broker.redis.disconnect();
  }
}

/** Ids go to 2^63-1; a JavaScript number is exact to 2^53-1. For larger ones write the JSON with BigInt. */
function isId(number) {
  return Number.isSafeInteger(number) && number > 0;
}
