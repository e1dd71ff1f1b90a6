/**
 * The versions of the developed server, one after the other: each change of its files makes another, which takes over when it can be called.
 * One that cannot is told of, and the one before goes on.
 */
import { fork } from "node:child_process";
import { getCompileCacheDir } from "node:module";
import { dirname, extname } from "node:path";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Output } from "../terminal.ts";
import type { Evidence, FromVersion, Grading, IssuerPlace, Offer, Question, Subject, ToVersion } from "./messages.ts";
import { watchFiles } from "./watch.ts";

export interface Current {
  /** Counts from 1. */
  readonly number: number;
  readonly offer: Offer;
  evidence(traceId: string): Promise<Evidence | undefined>;
  grade(tools: Grade): Promise<Grading | undefined>;
}
type Grade = Extract<Question, { readonly about: "grade" }>["tools"];

export interface Versions {
  /** The one that is called; undefined before the first. */
  current(): Current | undefined;
  /** Why the newest change is not what is called; undefined when it is. */
  problem(): string | undefined;
  /** A change was seen, and is being loaded. */
  readonly loading: boolean;
  /** Ends every process, and waits for that. */
  close(): Promise<void>;
}

export interface VersionsOptions {
  readonly subject: Subject;
  readonly issuer: IssuerPlace;
  readonly logLevel: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Another version is called, or there is another problem. */
  readonly onChange: () => void;
}

/** Loading a module may take as long: a package runner fetches servers that are not there yet. */
const START_MS = 120_000;
/** How long a version may take to end that is not called any more, calls in flight included. */
const END_MS = 8_000;
/** The same for one that nobody has called. */
const UNUSED_MS = 1_000;
const ASK_MS = 30_000;
/** A version that ends by itself sooner than this is not begun again: it would do it again. */
const LIVED_MS = 2_000;
const MAX_SAID = 4_000;

export function openVersions(options: VersionsOptions): Versions {
  const { subject, issuer, logLevel, onChange } = options;
  const living = new Set<Process>();
  let spare: Process | undefined = begin();
  let candidate: Process | undefined;
  let current: (Current & { readonly process: Process; readonly since: number }) | undefined;
  let problem: string | undefined;
  let counted = 0;
  let closed = false;
  const watch = watchFiles(() => load());

  function begin(): Process {
    const made = startProcess(options);
    living.add(made);
    void made.ended.then(() => {
      living.delete(made);
      if (spare === made) spare = undefined;
    });
    return made;
  }

  function follow(since: number, ...processes: readonly (Process | undefined)[]): void {
    const own = "file" in subject ? subject.file : subject.module;
    watch.follow([own, ...processes.flatMap((one) => (one === undefined ? [] : [...one.files]))], since);
  }

  function load(): void {
    if (closed) return;
    candidate?.end(UNUSED_MS);
    const since = Date.now();
    const mine = spare ?? begin();
    spare = undefined;
    candidate = mine;
    onChange();
    const superseded = () => candidate !== mine || closed;
    const done = (found: string | undefined) => {
      if (superseded()) return;
      candidate = undefined;
      problem = found;
      follow(since, mine, current?.process);
      // The next change finds it warm.
      spare = begin();
      onChange();
    };
    mine.start({ kind: "start", subject, issuer, logLevel }).then(
      (offer) => {
        if (superseded()) return mine.end(UNUSED_MS);
        const before = current?.process;
        current = { ...called(mine, offer), process: mine, since: Date.now() };
        mine.onFiles(() => current?.process === mine && follow(Date.now(), mine));
        void mine.ended.then((how) => gone(mine, how));
        done(undefined);
        before?.end();
      },
      (thrown: unknown) => {
        mine.end(UNUSED_MS);
        done(DrawbridgeError.from(thrown).message);
      },
    );
  }

  function called(process: Process, offer: Offer): Current {
    return {
      number: ++counted,
      offer,
      evidence: async (traceId) => (await process.ask({ about: "evidence", traceId })) as Evidence | undefined,
      grade: async (tools) => (await process.ask({ about: "grade", tools })) as Grading | undefined,
    };
  }

  /** Nobody asked it to end. */
  function gone(process: Process, how: string): void {
    if (closed || current?.process !== process) return;
    const lived = Date.now() - current.since;
    current = undefined;
    problem = `The server's process ended by itself: ${how}`;
    onChange();
    if (lived > LIVED_MS && candidate === undefined) load();
  }

  load();
  return {
    current: () => current,
    problem: () => problem,
    get loading() {
      return candidate !== undefined;
    },
    async close() {
      closed = true;
      watch.close();
      const all = [...living];
      for (const one of all) one.end(one === current?.process ? END_MS : UNUSED_MS);
      await Promise.all(all.map(({ ended }) => ended));
    },
  };
}

interface Process {
  readonly files: ReadonlySet<string>;
  onFiles(listener: () => void): void;
  /** Throws `settings_invalid` with the problem that keeps it from starting. */
  start(message: ToVersion): Promise<Offer>;
  /** Undefined when it does not answer. */
  ask(about: Question): Promise<unknown>;
  /** Resolves with how it ended, in words. */
  readonly ended: Promise<string>;
  /** Asks it to finish; after so long it is not asked any more. */
  end(graceMs?: number): void;
}

function startProcess({ env, cwd, stdout, stderr }: VersionsOptions): Process {
  const program = new URL(`./version${extname(import.meta.url)}`, import.meta.url);
  // What was compiled for the first is not compiled again for each.
  const cache = getCompileCacheDir();
  const child = fork(program, [], {
    cwd,
    env: { ...env, ...(cache !== undefined && { NODE_COMPILE_CACHE: dirname(cache) }) },
    execArgv: [],
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  const files = new Set<string>();
  const asked = new Map<number, (answer: unknown) => void>();
  const begun = Promise.withResolvers<Offer>();
  begun.promise.catch(() => {});
  const { promise: ended, resolve: over } = Promise.withResolvers<string>();
  let listener = () => {};
  let ids = 0;
  let said = "";
  let ending: NodeJS.Timeout | undefined;

  child.stdout?.setEncoding("utf8").on("data", (text: string) => void stdout.write(text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    said = `${said}${text}`.slice(-MAX_SAID);
    stderr.write(text);
  });
  child.on("message", (message) => heard(message as FromVersion));
  child.on("error", (error) => finished(error.message));
  // After its last words: `exit` may come before they were read.
  child.on("close", (code, signal) => finished(signal === null ? `exit code ${code}` : `signal ${signal}`));

  function heard(message: FromVersion): void {
    if (message.kind === "files") {
      for (const file of message.files) files.add(file);
      listener();
    } else if (message.kind === "ready") begun.resolve(message.offer);
    else if (message.kind === "failed") begun.reject(new DrawbridgeError("settings_invalid", message.problem));
    else if (message.kind === "answer") {
      asked.get(message.id)?.(message.answer);
      asked.delete(message.id);
    }
  }

  function finished(how: string): void {
    clearTimeout(ending);
    const words = said.trim() === "" ? how : `${how}\n${said.trim()}`;
    begun.reject(new DrawbridgeError("settings_invalid", `The server ended while it was loaded: ${words}`));
    for (const answer of asked.values()) answer(undefined);
    asked.clear();
    over(words);
  }

  const send = (message: ToVersion) => {
    if (child.connected) child.send(message, () => {});
  };
  return {
    files,
    onFiles(heardOf) {
      listener = heardOf;
    },
    ended,
    start(message) {
      send(message);
      const late = setTimeout(() => {
        begun.reject(
          new DrawbridgeError("settings_invalid", `The server was not loaded within ${START_MS / 1000} seconds.`),
        );
      }, START_MS);
      void begun.promise.catch(() => {}).finally(() => clearTimeout(late));
      return begun.promise;
    },
    ask(about) {
      const id = ++ids;
      const { promise, resolve } = Promise.withResolvers<unknown>();
      asked.set(id, resolve);
      const late = setTimeout(() => {
        asked.delete(id);
        resolve(undefined);
      }, ASK_MS);
      if (child.connected) send({ kind: "ask", id, about });
      else resolve(undefined);
      return promise.finally(() => clearTimeout(late));
    },
    end(graceMs = END_MS) {
      if (ending !== undefined) return;
      send({ kind: "close" });
      // A handler that never comes back hears nothing.
      ending = setTimeout(() => child.kill("SIGKILL"), graceMs);
    },
  };
}
