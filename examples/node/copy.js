// A copy of who is enrolled in what, and the rule by which it follows the events in whatever order they come.

import { readFileSync, renameSync, writeFileSync } from "node:fs";

/**
 * What the event decided, course by course: [course id, enrolled]. Rejected commands decide nothing, and what is
 * `superseded` belongs to a newer command, whose own event tells of it.
 */
export function decisions({ type, data }) {
  if (type !== "enrollment.applied.v1") return [];
  return [
    ...data.enrolled.map((course) => [course, true]),
    ...data.unenrolled.map((course) => [course, false]),
    ...data.unchanged.map((course) => [course, data.command !== "unenroll"]),
  ];
}

/**
 * The command's stamp as text that sorts as stamps do. Times carry microseconds, of which `Date` keeps none, and leave
 * out a fraction of zero: so pad it, and compare text.
 */
export function stampOf({ data }) {
  const [, seconds, fraction = ""] = /^(.*?)(?:\.(\d+))?Z$/.exec(data.issued_at);
  return `${seconds}.${fraction.padEnd(6, "0")}Z ${data.command_id}`;
}

/** Reads an event; throws where a number would lose digits (ids go to 2^63-1). */
export function parse(text) {
  return JSON.parse(text, (_, value) => {
    if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError(`${value} is not exact`);
    return value;
  });
}

export class Copy {
  #file;
  #pairs; // "student/course" -> [enrolled, stamp]; a pair that is not enrolled stays, for its stamp

  constructor(file) {
    this.#file = file;
    try {
      this.#pairs = new Map(Object.entries(JSON.parse(readFileSync(file, "utf8"))));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      this.#pairs = new Map();
    }
  }

  /** Brings the copy up to an event. Taking it twice, or after a newer one, changes nothing. */
  take(event) {
    for (const [course, enrolled] of decisions(event)) {
      const key = `${event.data.student_id}/${course}`;
      const stamp = stampOf(event);
      const [, held] = this.#pairs.get(key) ?? [false, ""];
      if (stamp > held) this.#pairs.set(key, [enrolled, stamp]);
    }
  }

  /** Writes the copy, whole or not at all. */
  save() {
    writeFileSync(`${this.#file}.new`, JSON.stringify(Object.fromEntries(this.#pairs)), { flush: true });
    renameSync(`${this.#file}.new`, this.#file);
  }
}
