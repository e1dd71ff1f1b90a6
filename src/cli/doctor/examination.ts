/** What a walk through a server is written down as: steps in their order, in each what was checked and how it came out. */
import { DrawbridgeError } from "../../core/errors.ts";
import { printable } from "../terminal.ts";

/** The way of a client from a URL to an answer, in this order. */
export const STEPS = {
  reach: "Reach the server",
  challenge: "Ask without a token",
  resource: "Find who issues tokens",
  server: "Read about the authorization server",
  browser: "Connect from a web page",
  registration: "Introduce the client",
  authorize: "Sign in and consent",
  token: "Get a token",
  refresh: "Renew the token",
  call: "Talk MCP",
} as const;
export type StepName = keyof typeof STEPS;

/** `warning`: some clients fail here, or something is unsafe; the usual ones go on. */
export type Outcome = "ok" | "warning" | "failed";

export interface Check {
  /** Stable, for scripts: `resource-differs`. */
  readonly id: string;
  readonly outcome: Outcome;
  /** What was seen. Nothing in it can steer a terminal. */
  readonly message: string;
  /** What to do about it. */
  readonly advice?: string;
}

export interface Step {
  readonly step: StepName;
  readonly outcome: Outcome | "skipped";
  readonly checks: readonly Check[];
}

/** Writes one check down. */
export interface Note {
  ok(id: string, message: string): void;
  warn(id: string, message: string, advice: string): void;
  fail(id: string, message: string, advice: string): void;
}

export interface Examination {
  /** Runs a step; what it throws is a failed check. Undefined, from it or because it threw: there is no going on. */
  step<T>(name: StepName, work: (note: Note) => Promise<T | undefined>): Promise<T | undefined>;
  /** All steps; those that did not run are skipped. */
  steps(): readonly Step[];
}

/** `done` is told of each step when it is over. */
export function examination(done: (step: Step) => void): Examination {
  const ran = new Map<StepName, Step>();
  return {
    async step(name, work) {
      const checks: Check[] = [];
      const add = (id: string, outcome: Outcome, message: string, advice?: string) =>
        void checks.push({
          id,
          outcome,
          message: printable(message, MAX_MESSAGE),
          ...(advice !== undefined && { advice: printable(advice, MAX_MESSAGE) }),
        });
      const note: Note = {
        ok: (id, message) => add(id, "ok", message),
        warn: (id, message, advice) => add(id, "warning", message, advice),
        fail: (id, message, advice) => add(id, "failed", message, advice),
      };
      let result: Awaited<ReturnType<typeof work>>;
      try {
        result = await work(note);
      } catch (thrown) {
        const { code, message, advice } = explained(thrown);
        note.fail(code, message, advice);
      }
      const outcome = (["failed", "warning"] as const).find((one) => checks.some((check) => check.outcome === one));
      const step: Step = { step: name, outcome: outcome ?? "ok", checks };
      ran.set(name, step);
      done(step);
      return result;
    },
    steps: () =>
      (Object.keys(STEPS) as StepName[]).map((step) => ran.get(step) ?? { step, outcome: "skipped", checks: [] }),
  };
}

const MAX_MESSAGE = 600;

/** What a failed connection says, by what its cause says. */
const CAUSES: readonly (readonly [pattern: RegExp, id: string, advice: string])[] = [
  [/ENOTFOUND|EAI_AGAIN/, "name-unknown", "Check the host name, and whether this machine's DNS knows it."],
  [/ECONNREFUSED/, "connection-refused", "Nothing listens there. Start the server, or check the port."],
  [
    /ECONNRESET|socket hang up|other side closed/,
    "connection-lost",
    "The server or a proxy in front ends connections. Its log says why.",
  ],
  [
    /EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|ConnectTimeout/i,
    "unreachable",
    "There is no way to the server from here. Check network, VPN and firewall.",
  ],
  [/certificate has expired/, "certificate-expired", "Renew the server's certificate."],
  [/altnames|does not match/, "certificate-name", "The certificate is for other names. Get one for this host."],
  [
    /self[- ]signed|unable to (?:verify|get).*(?:certificate|issuer)|certificate/i,
    "certificate-untrusted",
    "Serve the whole chain of a certificate that clients know. Name your own authority with --ca <file>.",
  ],
  [
    /wrong version number|packet length too long|SSL routines|EPROTO/i,
    "tls-failed",
    "Plain http seems to be served where https is asked for. Check the scheme and the proxy.",
  ],
  [
    /Parse Error|HTTPParser|invalid header/i,
    "no-http",
    "What answers there is not an HTTP server, or not a sound one.",
  ],
];

function explained(thrown: unknown): { code: string; message: string; advice: string } {
  const error = DrawbridgeError.from(thrown);
  const detail = error.detail ?? "";
  const [, code, advice] = CAUSES.find(([pattern]) => pattern.test(detail)) ?? [];
  if (advice !== undefined && code !== undefined)
    return { code, message: `${error.message} (${detail.replace(/^fetch failed: /, "")})`, advice };
  if (error.code === "upstream_timeout")
    return {
      code: "no-answer",
      message: error.message,
      advice:
        "The server took the request and did not finish its answer. Look into its log; an event stream must end after the response.",
    };
  return {
    code: error.code.replaceAll("_", "-"),
    message: detail === "" ? error.message : `${error.message} (${detail})`,
    advice: "The address cannot be used by clients as it is. See what the server's settings say about its public URL.",
  };
}
