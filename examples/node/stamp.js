// A new command's time and id: its stamp, which decides which of two commands is the later.

import { randomBytes } from "node:crypto";

let latest = 0; // microseconds since 1970

/** RFC 3339 with microseconds, later each time: `Date` has milliseconds, and of equal times the random ids decide. */
export function now() {
  latest = Math.max(Date.now() * 1000, latest + 1);
  const microseconds = String(latest % 1000).padStart(3, "0");
  return new Date(Math.floor(latest / 1000)).toISOString().replace("Z", `${microseconds}Z`);
}

/** RFC 9562, version 7: it begins with the time, so the database's index of ids grows at its end. */
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
