/**
 * Requests for approvals and the grants that come of them, as every replica knows them: rows in the store, each of which changes its
 * state by one writer at a time. A grant is spent by exactly one call, wherever and however often it is tried.
 */
import { hash } from "node:crypto";
import type { Access, Target } from "../../core/call.ts";
import { type Clock, systemClock } from "../../core/clock.ts";
import { newToken, randomHex } from "../../core/ids.ts";
import type { ApprovalNeed } from "../../policy/approvals.ts";
import type { Records, Row } from "../../store/ports.ts";
import type { Seals } from "../sealed-state.ts";

/** One request for an approval, and what became of it. */
export interface Request {
  /** What people call it: `KTQM-BXVD`. */
  readonly number: string;
  readonly state: "pending" | "approved" | "denied" | "spent";
  /** What it is good for (`bindingOf`). */
  readonly digest: string;
  /** Canonical hash of the request as it will be sent. */
  readonly request: string;
  readonly requester: { readonly subject: string; readonly client: string; readonly name?: string };
  readonly target: {
    readonly server: string;
    readonly kind: Target["kind"];
    readonly name: string;
    readonly upstreamName: string;
    readonly pin?: string;
    readonly access?: Access;
  };
  readonly method: string;
  readonly need: ApprovalNeed;
  /** In milliseconds since the epoch. */
  readonly askedAt: number;
  /** Until when it can be approved, and from then on, once it is, the call be made. */
  readonly until: number;
  readonly decided?: Decided;
}

export interface Decided {
  /** The user, or the operator's name. */
  readonly by: string;
  readonly via: "admin" | "control socket" | "elicitation";
  readonly at: number;
}

/** What it is about, for people. It may be private, so it is sealed where it is kept. */
export interface About {
  readonly title: string | undefined;
  /** JSON text. */
  readonly arguments: string;
}

/** A request as it was read; what is done with it counts only if it is still that. */
export interface Known {
  readonly request: Request;
  readonly version: number;
}

/** `own`: the caller has as many as they may; `all`: all together have. */
export type Full = "own" | "all";

export interface Kept {
  /** What was asked for this call before; also when its time is over, for a while. */
  look(digest: string): Promise<Known | undefined>;
  /** Asks for an approval by others. Undefined: somebody else has just asked for the same. `known`: what is in its place now. */
  ask(request: NewRequest, about: About, known: Known | undefined): Promise<Request | Full | undefined>;
  /** Opens a question to the caller, which is answered once. */
  question(request: NewRequest): Promise<Request | Full>;
  /** The question, for whoever takes it first. */
  answer(number: string): Promise<Request | undefined>;
  /** False: it is not any more what was read. */
  decide(known: Known, state: "approved" | "denied", decided: Decided): Promise<boolean>;
  /** Of all who try, on whichever replica, exactly one gets true. */
  spend(known: Known): Promise<boolean>;
  /** The call was not made after all: the same call may use the grant. */
  giveBack(request: Request): Promise<void>;
  /** The next round of an approved call that its server answered with a question: a token that `goOn` takes once. */
  nextRound(seconds: number): Promise<string>;
  goOn(token: string): Promise<boolean>;
  /** Requests that wait for others, or for their call; oldest first. */
  open(): Promise<readonly Request[]>;
  find(number: string): Promise<Known | undefined>;
  about(request: Request): Promise<About | undefined>;
}

export type NewRequest = Omit<Request, "number" | "state" | "askedAt" | "until" | "decided">;

/** By the digest of the call: of one call there is one. */
const REQUEST = "approval";
/** By their numbers. */
const QUESTION = "approval-question";
const ABOUT = "approval-about";
const ROUND = "approval-round";

/** Requests of one user through one client, and of everybody, that wait to be decided. */
export const MAX_OWN = 20;
const MAX_ALL = 500;
const PAGE = 1000;
/** A request that is over stays so long that what comes too late is told so. */
const LINGERS_MS = 600_000;
const SPENT_MS = 60_000;

export function openKept(records: Records, seals: Seals, clock: Clock = systemClock): Kept {
  const ownerOf = ({ requester }: Pick<Request, "requester">) =>
    hash("sha256", JSON.stringify([requester.subject, requester.client]), "base64url");
  const indexOf = (request: Pick<Request, "requester" | "number">) => ({
    number: request.number,
    owner: ownerOf(request),
  });
  const isOpen = ({ state, until }: Request) => (state === "pending" || state === "approved") && until > clock();
  const knownOf = (row: Row<Request> | undefined): Known | undefined =>
    row && { request: row.value, version: row.version };
  const made = (request: NewRequest): Request => {
    const askedAt = clock();
    return {
      ...request,
      number: newNumber(),
      state: "pending",
      askedAt,
      until: askedAt + request.need.expiresSeconds * 1000,
    };
  };
  const bindingOf = (number: string) => `approval\n${number}`;

  /** Counted when something is asked, never with a call. */
  const fullness = async (kind: string, request: NewRequest): Promise<Full | undefined> => {
    const own = await records.find<Request>(kind, "owner", ownerOf(request), { limit: PAGE });
    if (own.length >= PAGE || own.filter(({ value }) => isOpen(value)).length >= MAX_OWN) return "own";
    const all = await records.list<Request>(kind, { limit: PAGE });
    return all.length >= PAGE || all.filter(({ value }) => isOpen(value)).length >= MAX_ALL ? "all" : undefined;
  };
  const write = (request: Request, ifVersion: number, lingers = LINGERS_MS) =>
    records.put(REQUEST, request.digest, request, {
      ifVersion,
      expiresAt: (request.state === "spent" ? clock() : request.until) + lingers,
      index: indexOf(request),
    });

  return {
    look: async (digest) => knownOf(await records.get<Request>(REQUEST, digest)),
    async ask(wanted, about, known) {
      const full = await fullness(REQUEST, wanted);
      if (full !== undefined) return full;
      const request = made(wanted);
      const seconds = Math.ceil((request.until + LINGERS_MS - clock()) / 1000);
      const sealed = await seals.seal(about, bindingOf(request.number), seconds);
      // Before the request, which must not be seen without what it is about.
      const expiresAt = request.until + LINGERS_MS + wanted.need.expiresSeconds * 1000;
      await records.put(ABOUT, request.number, { sealed }, { expiresAt });
      if (await write(request, known?.version ?? 0)) return request;
      await records.delete(ABOUT, request.number);
      return undefined;
    },
    async question(wanted) {
      const full = await fullness(QUESTION, wanted);
      if (full !== undefined) return full;
      const request = made(wanted);
      const expiresAt = request.until + LINGERS_MS;
      await records.put(QUESTION, request.number, request, { ifVersion: 0, expiresAt, index: indexOf(request) });
      return request;
    },
    answer: async (number) => (await records.take<Request>(QUESTION, number))?.value,
    decide({ request, version }, state, decided) {
      const until = state === "approved" ? clock() + request.need.expiresSeconds * 1000 : request.until;
      return write({ ...request, state, decided, until }, version);
    },
    spend: ({ request, version }) => write({ ...request, state: "spent" }, version, SPENT_MS),
    async giveBack(request) {
      const row = await records.get<Request>(REQUEST, request.digest);
      // Somebody has asked anew meanwhile: then that one counts.
      if (row !== undefined && row.value.number !== request.number) return;
      await write({ ...request, state: "approved" }, row?.version ?? 0);
    },
    async nextRound(seconds) {
      const token = newToken();
      await records.put(ROUND, token, {}, { ifVersion: 0, expiresAt: clock() + seconds * 1000 });
      return token;
    },
    goOn: async (token) => (await records.take(ROUND, token)) !== undefined,
    async open() {
      const rows = await records.list<Request>(REQUEST, { limit: PAGE });
      return rows
        .map(({ value }) => value)
        .filter(isOpen)
        .sort((one, other) => one.askedAt - other.askedAt);
    },
    async find(number) {
      if (!NUMBER.test(number)) return undefined;
      const [row] = await records.find<Request>(REQUEST, "number", number, { limit: 1 });
      return knownOf(row);
    },
    async about({ number }) {
      const row = await records.get<{ sealed: string }>(ABOUT, number);
      return row && seals.open<About>(row.value.sealed, bindingOf(number));
    },
  };
}

const NUMBER = /^[B-DF-HJKMNP-TV-Z]{4}-[B-DF-HJKMNP-TV-Z]{4}$/;
/** No digit, so that it is taken for no number of a telephone or a card where texts are masked; no vowel, so that it is no word. */
const LETTERS = "BCDFGHJKMNPQRSTVWXYZ";

function newNumber(): string {
  const letters = [...Buffer.from(randomHex(8), "hex")].map((byte) => LETTERS[byte % LETTERS.length] ?? "").join("");
  return `${letters.slice(0, 4)}-${letters.slice(4)}`;
}
