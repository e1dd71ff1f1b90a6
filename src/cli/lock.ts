/** `drawbridge pin | diff | approve | verify`: the lockfile, what differs from it, and the approving of a difference. */
import { randomBytes } from "node:crypto";
import { chmod, readFile, rename, stat, unlink, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { type Command, Option } from "commander";
import { type LoadedSettings, loadSettings } from "../config/load.ts";
import { type Drift, type PinnedKind, reactionTo } from "../contract/drift.ts";
import type { Reaction } from "../contract/lock-settings.ts";
import {
  type Lock,
  type LockDrift,
  type Locked,
  type LockSigner,
  lockDrift,
  lockKey,
  lockOf,
  lockSigner,
  newLockKey,
  writeLock,
} from "../contract/lockfile.ts";
import { lookAlikes } from "../contract/look-alikes.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { lockPath, readLockFile } from "../gateway/lock.ts";
import { openPins, type Pin } from "../gateway/pins.ts";
import { inspectedDrift } from "../gateway/suspicion.ts";
import { silentLogger } from "../observe/logger.ts";
import { driftLines, seen } from "./drift-text.ts";
import { type OfferedServer, offeredNow } from "./look.ts";
import { Ended, EXIT } from "./main.ts";
import { acceptInStore } from "./pins.ts";
import { DEFAULT_FILE, withStore } from "./store.ts";
import { type Painter, painter, type Terminal } from "./terminal.ts";

interface LockOptions {
  readonly file?: string;
  readonly key?: string;
  readonly renew?: true;
  readonly kind?: PinnedKind;
  readonly pin?: string;
  readonly yes?: true;
  readonly offline?: true;
  readonly format?: "text" | "json";
}

/** The PEM text of the key, where a file would be in the way. */
const KEY_VARIABLE = "DRAWBRIDGE_LOCK_KEY";

const HELP = `
The lockfile holds every definition that somebody has looked at: drawbridge.lock beside the settings file, or lock.file. It
belongs into version control. It is signed with an Ed25519 key, given by --key <file> or as PEM text in
${KEY_VARIABLE}; the public key stands in the settings under lock.keys.

Examples:
  $ drawbridge pin --key lock.key          (the first time: makes key and lockfile)
  $ drawbridge diff                        (what the servers offer now, against the lockfile)
  $ drawbridge approve orders/get_order --key lock.key
  $ drawbridge verify                      (for CI: 0 as pinned, 1 beyond the policy, 2 a lockfile that cannot be trusted)
`;

export function definePin(command: Command, terminal: Terminal): void {
  shared(command)
    .argument("[server...]", "only these servers of the settings; the others stay as they are")
    .option("--key <file>", "private key that signs; made where there is no file yet")
    .option("--renew", "take everything as it is offered now, changes included")
    .action((servers: string[], options: LockOptions) => pin(servers, options, terminal));
}

export function defineDiff(command: Command, terminal: Terminal): void {
  shared(command)
    .argument("[server...]", "only these servers of the settings")
    .action((servers: string[], options: LockOptions) => diff(servers, options, terminal));
}

export function defineVerify(command: Command, terminal: Terminal): void {
  shared(command)
    .argument("[server...]", "only these servers of the settings")
    .option("--offline", "look at the lockfile and its signature only; open no server")
    .action((servers: string[], options: LockOptions) => verify(servers, options, terminal));
}

export function defineApprove(command: Command, terminal: Terminal): void {
  shared(command)
    .argument("<definition>", "server/name; server alone for what it says of itself; server/* for all that differs")
    .option("--key <file>", "private key that signs the lockfile")
    .option("--pin <hash>", "only if what is offered has this hash (its beginning is enough), as `diff` printed it")
    .addOption(
      new Option("--kind <kind>", "where a name is of several kinds").choices(["tool", "prompt", "resourceTemplate"]),
    )
    .option("-y, --yes", "do not ask")
    .action((target: string, options: LockOptions) => approve(target, options, terminal));
}

function shared(command: Command): Command {
  return command
    .option("--file <settings>", `settings file (default: ./${DEFAULT_FILE})`)
    .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"))
    .addHelpText("after", HELP);
}

/** A difference, and what the policy says of it. */
interface Judged extends LockDrift {
  readonly reaction: Reaction;
  /** Hash of what is offered; undefined when it is gone. */
  readonly offered: string | undefined;
}

/** What a command works on. */
interface Work {
  readonly loaded: LoadedSettings;
  readonly signer: LockSigner | undefined;
  readonly path: string;
  /** The path as a person would write it. */
  readonly shownPath: string;
  readonly lock: Lock | undefined;
}

async function begin(options: LockOptions, terminal: Terminal, makeKey = false, renew = false): Promise<Work> {
  const file = resolve(terminal.cwd, options.file ?? DEFAULT_FILE);
  const loaded = await loadSettings(file, { env: terminal.env });
  const signer = await signerOf(options, terminal, makeKey);
  const { lock: settings } = loaded.settings;
  const place = { settings, folder: dirname(file), beside: true };
  const path = lockPath(place) ?? "";
  const shownPath = relative(terminal.cwd, path) || path;
  // Who has the private key trusts what it has signed; and before there are keys in the settings there is a lockfile already.
  const keys = signer === undefined ? settings.keys : [...settings.keys, signer.key];
  const there = await stat(path).then(
    () => true,
    () => false,
  );
  let lock: Lock | undefined;
  try {
    lock = there ? await readLockFile({ ...place, settings: { ...settings, keys } }) : undefined;
  } catch (error) {
    if (!renew) throw error;
    terminal.stderr.write(`${DrawbridgeError.from(error).message}\nIt is made anew.\n`);
  }
  return { loaded, signer, path, shownPath, lock };
}

async function signerOf({ key }: LockOptions, terminal: Terminal, make: boolean): Promise<LockSigner | undefined> {
  if (key === undefined) {
    const pem = terminal.env[KEY_VARIABLE];
    return pem === undefined || pem === "" ? undefined : lockSigner(pem);
  }
  const path = resolve(terminal.cwd, key);
  let pem: string;
  try {
    pem = await readFile(path, "utf8");
    const { mode } = await stat(path);
    if (terminal.platform !== "win32" && (mode & 0o077) !== 0)
      terminal.stderr.write(`warning: others can read ${key}; chmod 600 keeps it yours.\n`);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code !== "ENOENT" || !make)
      throw new DrawbridgeError("settings_invalid", `The key ${key} cannot be read (${code ?? "unknown"}).`);
    pem = newLockKey();
    await writeFile(path, pem, { flag: "wx", mode: 0o600 });
    terminal.stderr.write(`made a key: ${key} (keep it out of version control)\n`);
  }
  return lockSigner(pem);
}

async function pin(servers: readonly string[], options: LockOptions, terminal: Terminal): Promise<void> {
  const renew = options.renew === true;
  const work = await begin(options, terminal, true, renew);
  needSigner(work);
  const looked = await offeredNow(work.loaded, servers, terminal);
  const held = renew ? new Map<string, string>() : alikeAmong(work, looked);
  const next = new Map(work.lock ?? []);
  if (renew && servers.length === 0)
    for (const server of next.keys()) if (!Object.hasOwn(work.loaded.settings.servers, server)) next.delete(server);
  const said: string[] = [];
  for (const { server, offered, left } of looked) {
    if (offered === undefined) continue;
    if (next.has(server) && !renew) continue;
    const kept = offered.definitions.filter((one) => !held.has(`${server}/${one.kind}/${one.name}`));
    next.set(server, new Map(kept.map((one) => [lockKey(one.kind, one.name), one])));
    said.push(`pinned ${server}: ${countedKinds(kept)}`, ...left.map((one) => `left out: ${one}`));
  }
  const differing = await judged(work, looked);
  await save(work, next);
  const problems = problemsOf(looked);
  if (options.format === "json")
    terminal.stdout.write(
      `${JSON.stringify({ lockfile: work.shownPath, servers: [...next.keys()], held: Object.fromEntries(held), problems }, null, 2)}\n`,
    );
  else {
    const paint = painter(terminal.stdout, terminal.env);
    const lines = [
      ...said,
      ...[...held].map(([what, why]) =>
        paint("yellow", `left out: ${seen(what.replace(/\/[a-zA-Z]+\//, "/"))}: ${why}`),
      ),
      ...(renew || differing.length === 0
        ? []
        : [
            `${differing.length} of what was pinned before differ: drawbridge diff, and drawbridge approve or pin --renew`,
          ]),
      `wrote ${work.shownPath}${work.signer === undefined ? ", not signed" : ""}`,
      ...hintOf(work),
    ];
    terminal.stdout.write(`${lines.join("\n")}\n`);
  }
  fail(problems, terminal);
}

async function diff(servers: readonly string[], options: LockOptions, terminal: Terminal): Promise<void> {
  const work = await begin(options, terminal);
  const looked = await offeredNow(work.loaded, servers, terminal);
  const all = work.lock === undefined ? await storeDrift(work, looked, options, terminal) : await judged(work, looked);
  const problems = problemsOf(looked);
  print(work, all, problems, options, terminal);
  fail(problems, terminal);
}

async function verify(servers: readonly string[], options: LockOptions, terminal: Terminal): Promise<void> {
  const work = await begin(options, terminal);
  if (work.lock === undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no lockfile ${work.shownPath} to verify against. \`drawbridge pin\` writes it.`,
    );
  const looked = options.offline === true ? [] : await offeredNow(work.loaded, servers, terminal);
  const all = await judged(work, looked);
  const problems = problemsOf(looked);
  const { firstSeen } = work.loaded.settings.lock;
  const unpinned = looked.filter(({ server, offered }) => offered !== undefined && work.lock?.has(server) !== true);
  const notes = unpinned.map(({ server }) =>
    firstSeen === "hold"
      ? `${server}: it is not in the lockfile, and lock.firstSeen is hold`
      : `${server}: it is not in the lockfile; the gateway pins it at first sight (lock.firstSeen)`,
  );
  const beyond = all.some(({ reaction }) => reaction !== "accept") || (firstSeen === "hold" && unpinned.length > 0);
  print(work, all, problems, options, terminal, notes, !beyond && problems.length === 0);
  if (beyond) throw new Ended(EXIT.failed);
  fail(problems, terminal);
}

async function approve(target: string, options: LockOptions, terminal: Terminal): Promise<void> {
  const slash = target.indexOf("/");
  const server = slash === -1 ? target : target.slice(0, slash);
  const name = slash === -1 ? "" : target.slice(slash + 1);
  const work = await begin(options, terminal);
  const covered = work.lock?.has(server) === true;
  const looked = covered ? await offeredNow(work.loaded, [server], terminal) : [];
  fail(problemsOf(looked), terminal);
  const candidates = covered ? await judged(work, looked) : await storeDrift(work, undefined, options, terminal);
  const wanted = candidates.filter(
    (one) =>
      one.server === server &&
      (name === "*" || (one.name === name && (name !== "" || one.kind === "server"))) &&
      (options.kind === undefined || one.kind === options.kind),
  );
  if (wanted.length === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      `There is nothing to approve for ${seen(target)}. \`drawbridge diff\` shows what differs.`,
    );
  if (name !== "*" && wanted.length > 1)
    throw new DrawbridgeError("settings_invalid", `${seen(target)} is of several kinds; name one with --kind.`);
  const hash = options.pin?.replace(/^sha256:/, "");
  if (hash !== undefined && !wanted.every(({ offered }) => offered?.slice("sha256:".length).startsWith(hash) === true))
    throw new DrawbridgeError(
      "settings_invalid",
      `What is offered is not ${options.pin}: it changed since you looked. See \`drawbridge diff\` again.`,
    );
  // Nobody is told to sign before the key is known to be missing.
  if (covered) needSigner(work);
  const paint = painter(terminal.stdout, terminal.env);
  if (options.format !== "json") terminal.stdout.write(texts(wanted, paint).join("\n").concat("\n"));
  await confirmed(wanted.length, options, terminal);
  if (covered) {
    const next = new Map(work.lock);
    const locked = new Map(next.get(server));
    const [now] = looked;
    for (const { kind, name: one } of wanted) {
      const fresh = now?.offered?.definitions.find((each) => each.kind === kind && each.name === one);
      if (fresh === undefined) locked.delete(lockKey(kind, one));
      else locked.set(lockKey(kind, one), fresh);
    }
    next.set(server, locked);
    await save(work, next);
  } else
    for (const { kind, name: one, offered } of wanted)
      await acceptInStore(server, kind, one, { file: options.file }, terminal, offered);
  const where = covered ? work.shownPath : "the store";
  const approved = wanted.map((one) => titleOf(one));
  if (options.format === "json") terminal.stdout.write(`${JSON.stringify({ approved, where }, null, 2)}\n`);
  else terminal.stdout.write(`${approved.map((one) => `approved ${one}`).join("\n")}\nin ${where}\n`);
}

async function confirmed(count: number, { yes }: LockOptions, { ask }: Terminal): Promise<void> {
  if (yes === true || ask === undefined) return;
  const answer = await ask(`Approve ${count === 1 ? "this" : `these ${count}`}? [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw new Ended(EXIT.failed);
}

/** What nobody has approved yet in the store: what is offered now if `looked` knows it, else what a gateway has seen. */
async function storeDrift(
  { loaded, lock }: Work,
  looked: readonly OfferedServer[] | undefined,
  { file }: LockOptions,
  terminal: Terminal,
): Promise<readonly Judged[]> {
  let pins: readonly Pin[] = [];
  await withStore({ file, store: undefined, readOnly: true }, terminal, async (store) => {
    pins = await openPins(store.records, silentLogger).list();
  });
  const kinds = (pin: Pin) => pin.kind as PinnedKind;
  const mine = pins.filter(
    ({ server }) => lock?.has(server) !== true && Object.hasOwn(loaded.settings.servers, server),
  );
  const locks = (side: (pin: Pin) => readonly Locked[]): Lock =>
    lockOf(
      Object.keys(loaded.settings.servers).flatMap((server) => {
        const those = mine.filter((pin) => pin.server === server);
        return those.length === 0 ? [] : [{ server, definitions: those.flatMap(side) }];
      }),
    );
  const before = locks(({ pin, definition, name, ...rest }) =>
    pin === undefined || definition === undefined
      ? []
      : [{ kind: kinds({ pin, definition, name, ...rest }), name, pin, value: definition }],
  );
  const after =
    looked === undefined
      ? locks((pin) => {
          const now = pin.offered ?? pin;
          return now.pin === undefined || now.definition === undefined
            ? []
            : [{ kind: kinds(pin), name: pin.name, pin: now.pin, value: now.definition }];
        })
      : lockOf(looked.flatMap(({ offered }) => offered ?? []));
  return (await withReactions(loaded, lockDrift(before, after), before, after)).filter(
    // Of a server that is in no lockfile the version and the capabilities are not pinned.
    ({ kind, drift }) =>
      looked === undefined || kind !== "server" || drift.parts.some(({ part }) => part === "instructions"),
  );
}

function judged({ loaded, lock = new Map() }: Work, looked: readonly OfferedServer[]): Promise<readonly Judged[]> {
  const now = lockOf(looked.flatMap(({ offered }) => offered ?? []));
  return withReactions(loaded, lockDrift(lock, now), lock, now);
}

async function withReactions(
  { settings }: LoadedSettings,
  all: readonly LockDrift[],
  before: Lock,
  now: Lock,
): Promise<readonly Judged[]> {
  const { policy, inspect } = settings.lock;
  const judgedAll: Judged[] = [];
  for (const one of all) {
    const { server, kind, name } = one;
    const [was, is] = [before, now].map((side) => side.get(server)?.get(lockKey(kind, name)));
    const ownTools = () =>
      [before, now]
        .flatMap((side) => [...(side.get(server)?.values() ?? [])])
        .flatMap((entry) => (entry.kind === "tool" ? [entry.name] : []));
    const drift =
      inspect === "off" ? one.drift : await inspectedDrift(one.drift, server, kind, was?.value, is?.value, ownTools);
    judgedAll.push({ ...one, drift, reaction: reactionTo(drift, policy), offered: is?.pin });
  }
  return judgedAll;
}

/** Names that could be taken for others', which nobody has seen side by side yet. */
function alikeAmong({ lock }: Work, looked: readonly OfferedServer[]): Map<string, string> {
  const several = looked.length > 1;
  const found = new Map<string, string>();
  for (const kind of ["tool", "prompt"] as const) {
    const all = looked.flatMap(({ server, offered }) =>
      (offered?.definitions ?? []).flatMap((one) => (one.kind === kind ? [{ server, name: one.name }] : [])),
    );
    const named = all.map(({ server, name }) => ({
      server,
      name,
      served: several ? `${server}_${name}` : name,
      reviewed: lock?.get(server)?.has(lockKey(kind, name)) === true,
    }));
    for (const [at, reason] of lookAlikes(named)) {
      const one = all[at];
      if (one !== undefined) found.set(`${one.server}/${kind}/${one.name}`, reason);
    }
  }
  return found;
}

function needSigner({ signer, loaded, shownPath }: Work): void {
  const { keys, unsigned } = loaded.settings.lock;
  if (signer !== undefined || (unsigned === "accept" && keys.length === 0)) return;
  throw new DrawbridgeError(
    "settings_invalid",
    `${shownPath} has to be signed, because no gateway takes it otherwise: give the key with --key <file> or in ${KEY_VARIABLE}. (Without one: lock.unsigned: accept, which is insecure.)`,
  );
}

/** In one step, so that a gateway that reads meanwhile sees the one or the other. */
async function save({ path, signer }: Work, lock: Lock): Promise<void> {
  const text = writeLock(lock, signer === undefined ? [] : [signer]);
  const beside = `${path}.${randomBytes(6).toString("hex")}`;
  try {
    await writeFile(beside, text, { flag: "wx", mode: 0o644 });
    await chmod(beside, 0o644);
    await rename(beside, path);
  } catch (error) {
    await unlink(beside).catch(() => {});
    throw error;
  }
}

function hintOf({ signer, loaded }: Work): string[] {
  const { keys } = loaded.settings.lock;
  if (signer === undefined || keys.includes(signer.key)) return [];
  const all = [...keys, signer.key];
  return [
    "",
    "Put the public key into the settings, so that gateways trust it:",
    "lock:",
    "  keys:",
    ...all.map((key) => `    - ${key}`),
  ];
}

function print(
  { shownPath, lock }: Work,
  all: readonly Judged[],
  problems: readonly string[],
  { format }: LockOptions,
  terminal: Terminal,
  notes: readonly string[] = [],
  ok?: boolean,
): void {
  const baseline = lock === undefined ? "what was first seen" : shownPath;
  if (format === "json") {
    const drift = all.map(({ server, kind, name, reaction, offered, drift: { classes, alarms, parts } }) => {
      return { server, kind, name, reaction, offered, classes, alarms, parts };
    });
    terminal.stdout.write(
      `${JSON.stringify({ ...(ok !== undefined && { ok }), pinned: baseline, drift, notes, problems }, null, 2)}\n`,
    );
    return;
  }
  const paint = painter(terminal.stdout, terminal.env);
  const held = all.filter(({ reaction }) => reaction !== "accept").length;
  const last =
    all.length === 0
      ? `Everything is as ${lock === undefined ? "it was first seen" : `in ${shownPath}`}.`
      : `${all.length} of what is offered ${all.length === 1 ? "differs" : "differ"} from ${baseline}; ${held} beyond the policy.`;
  terminal.stdout.write(`${[...texts(all, paint), ...notes, last].join("\n")}\n`);
}

function texts(all: readonly Judged[], paint: Painter): string[] {
  return all.flatMap((one) => {
    const { reaction, drift, offered } = one;
    const style = reaction === "accept" ? "green" : reaction === "hold" ? "yellow" : "red";
    const hash = offered === undefined ? "" : `  ${offered.slice("sha256:".length, "sha256:".length + 12)}`;
    return [
      `${paint("bold", titleOf(one))}${paint("dim", hash)}`,
      paint(style, `  ${OUTCOMES[reaction](drift)}: ${drift.classes.join(", ")}`),
      ...driftLines(drift, paint),
      "",
    ];
  });
}

const OUTCOMES: Record<Reaction, (drift: Drift) => string> = {
  accept: ({ classes }) => (classes.includes("gone") ? "reported" : "served"),
  hold: ({ classes }) => (classes.includes("gone") ? "reported" : "held back"),
  stop: () => "its whole server is held back",
};

const titleOf = ({ server, kind, name }: Pick<LockDrift, "server" | "kind" | "name">) =>
  kind === "server" ? `${server} (what it says of itself)` : `${server}/${seen(name)} (${kind})`;

function problemsOf(looked: readonly OfferedServer[]): string[] {
  return looked.flatMap(({ server, problem }) =>
    problem === undefined ? [] : [`${server} could not be read: ${problem}`],
  );
}

/** Ends the command when a server could not be read: what is not known is not as it should be. */
function fail(problems: readonly string[], terminal: Terminal): void {
  if (problems.length === 0) return;
  for (const problem of problems) terminal.stderr.write(`${seen(problem)}\n`);
  throw new Ended(EXIT.failed);
}

function countedKinds(definitions: readonly Locked[]): string {
  const counts = Object.entries(NOUNS).flatMap(([kind, noun]) => {
    const count = definitions.filter((one) => one.kind === kind).length;
    return count === 0 ? [] : [`${count} ${noun}${count === 1 ? "" : "s"}`];
  });
  return counts.join(", ") || "nothing but what it says of itself";
}

const NOUNS = { tool: "tool", prompt: "prompt", resourceTemplate: "resource template" };
