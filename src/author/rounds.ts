/**
 * Questions for clients of 2026-07-28 over stdio: a call that asks is answered with `input_required`, and goes on when its client
 * calls again with the answers (Multi Round-Trip Requests). The handler waits meanwhile in this process, which is the only one there is.
 */
import { hash, randomUUID } from "node:crypto";
import type { JsonObject, Outcome, Question, QuestionAnswer } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { inputRequired, keyFor } from "../mcp/interaction.ts";
import { isObject } from "../mcp/json-text.ts";

export interface Rounds {
  /**
   * One request: begins a call, or goes on with the one that its `requestState` names. Resolves with the outcome of this round. `newest`
   * are the parameters of the round that is under way.
   */
  take(
    request: { readonly method: string; readonly params: JsonObject },
    cancelled: AbortSignal,
    begin: (ask: Ask, signal: AbortSignal, newest: () => JsonObject) => Promise<Outcome>,
  ): Promise<Outcome>;
  close(): void;
}

export type Ask = (question: Question, withdrawn: AbortSignal) => Promise<QuestionAnswer>;

interface Waiting {
  readonly about: string;
  params: JsonObject;
  readonly open: Map<string, { readonly question: Question; readonly settle: (answer: QuestionAnswer) => void }>;
  readonly ended: AbortController;
  /** What the round that is under way resolves with. */
  round: PromiseWithResolvers<Outcome>;
  timer: NodeJS.Timeout | undefined;
}

const MAX_WAITING = 100;
const WAIT_MS = 600_000;

export function openRounds(waitMs = WAIT_MS): Rounds {
  const waiting = new Map<string, Waiting>();

  const end = (state: string, call: Waiting) => {
    waiting.delete(state);
    clearTimeout(call.timer);
    call.ended.abort();
  };

  /** Waits for the end of a round; a client that cancels it ends the call. */
  const heard = async (state: string, call: Waiting, cancelled: AbortSignal): Promise<Outcome> => {
    const gone = () => {
      end(state, call);
      call.round.reject(new DrawbridgeError("cancelled", "The request was cancelled."));
    };
    cancelled.addEventListener("abort", gone, { once: true });
    try {
      return await call.round.promise;
    } finally {
      cancelled.removeEventListener("abort", gone);
    }
  };

  return {
    async take({ method, params }, cancelled, begin) {
      const about = hash(
        "sha256",
        JSON.stringify([method, params["name"], params["uri"], params["arguments"] ?? {}]),
        "hex",
      );
      const given = params["requestState"];
      if (typeof given === "string") {
        const call = waiting.get(given);
        // A state of another call, or one that ended: nothing goes on under arguments that were not asked about.
        if (call === undefined || call.about !== about)
          throw new DrawbridgeError("invalid_params", "This `requestState` is none that waits. Call again without it.");
        const responses = isObject(params["inputResponses"]) ? params["inputResponses"] : {};
        const missing = [...call.open.keys()].filter((key) => responses[key] === undefined);
        if (missing.length > 0) return inputRequired(questionsOf(call), given);
        clearTimeout(call.timer);
        call.params = params;
        call.round = Promise.withResolvers();
        for (const [key, { settle }] of [...call.open]) {
          call.open.delete(key);
          settle({ kind: "result", result: JSON.stringify(responses[key]) });
        }
        return heard(given, call, cancelled);
      }
      const state = randomUUID();
      const call: Waiting = {
        about,
        params,
        open: new Map(),
        ended: new AbortController(),
        round: Promise.withResolvers(),
        timer: undefined,
      };
      const ask: Ask = (question, withdrawn) => {
        if (waiting.size >= MAX_WAITING && !waiting.has(state))
          throw new DrawbridgeError("overloaded", "Too many calls wait for answers. Try again later.");
        waiting.set(state, call);
        const { promise, resolve, reject } = Promise.withResolvers<QuestionAnswer>();
        const key = keyFor(question, call.open);
        call.open.set(key, { question, settle: resolve });
        withdrawn.addEventListener(
          "abort",
          () => reject(new DrawbridgeError("cancelled", "The question was withdrawn.")),
          {
            once: true,
          },
        );
        // Questions of one turn of the handler go out together.
        setImmediate(() => {
          if (call.open.size === 0 || call.ended.signal.aborted) return;
          clearTimeout(call.timer);
          call.timer = setTimeout(() => end(state, call), waitMs);
          call.timer.unref();
          call.round.resolve(inputRequired(questionsOf(call), state));
        });
        return promise;
      };
      begin(ask, call.ended.signal, () => call.params).then(
        (outcome) => {
          end(state, call);
          call.round.resolve(outcome);
        },
        (error: unknown) => {
          end(state, call);
          call.round.reject(error);
        },
      );
      // A round that nobody waits for any more may fail.
      call.round.promise.catch(() => {});
      return heard(state, call, cancelled);
    },
    close() {
      for (const [state, call] of [...waiting]) end(state, call);
    },
  };
}

const questionsOf = ({ open }: Waiting): ReadonlyMap<string, Question> =>
  new Map([...open].map(([key, { question }]) => [key, question]));
