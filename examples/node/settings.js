// Where Redis is, and how long to wait for it.

export const BROKER_URL = address("ENROLLMENT_BROKER_URL", "redis://localhost:6379/0");
export const EVENTS_URL = address("ENROLLMENT_EVENTS_URL", BROKER_URL);
export const STREAM = process.env.ENROLLMENT_EVENTS_STREAM ?? "enrollment.events";

/** The address that a variable says; one that is none, an empty one too, ends the program with a sentence. */
function address(name, otherwise) {
  const url = process.env[name] ?? otherwise;
  if (/^rediss?:\/\/./.test(url)) return url;
  console.error(`${name} is no address of a Redis, such as redis://:password@localhost:6379/0; set it, or unset it.`);
  process.exit(2);
}
