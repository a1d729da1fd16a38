// Where Redis is, and how long to wait for it.

export const BROKER_URL = process.env.ENROLLMENT_BROKER_URL ?? "redis://localhost:6379/0";
export const EVENTS_URL = process.env.ENROLLMENT_EVENTS_URL ?? BROKER_URL;
export const STREAM = process.env.ENROLLMENT_EVENTS_STREAM ?? "enrollment.events";
