/** Opens what writes the log: the chain of this process with its signing key and the keys of persons, and the journal over them. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records, Store } from "../store/ports.ts";
import { sharedKey } from "../store/sealing.ts";
import { openChain } from "./chain.ts";
import { type Journal, openJournal } from "./journal.ts";
import { openPersonalKeys, type PersonalKeys } from "./personal.ts";
import type { AuditSettings } from "./settings.ts";
import { type Signer, signerOfPem, signerOfSeed } from "./signing.ts";
import { openSpill } from "./spill.ts";

export interface EvidenceParts {
  readonly store: Pick<Store, "audit" | "records">;
  readonly settings: AuditSettings;
  /** `tokens.keyEncryptionSecret`: without it the keys in the store are of no use. */
  readonly encryption: Secret | undefined;
  /** What a path in the settings is relative to. */
  readonly folder: string;
  readonly replica: string;
  readonly logger: Logger;
  /** Takes out of a record's texts what must be in none. */
  readonly clean?: (text: string) => string;
  /** Where records go while the store cannot be written, if the settings say so (`whenUnavailable`). */
  readonly spillFolder?: string;
  /** `one that is known`: a key that no gateway of this store has signed with is refused, since it was made of the wrong secret. */
  readonly signsAs?: "any key" | "one that is known";
  readonly clock?: Clock;
}

export interface Evidence {
  readonly journal: Journal;
  readonly keys: PersonalKeys;
  /** Rejects with `settings_invalid` when the file of `audit.signingKey` holds none. */
  signer(): Promise<Signer>;
}

/** Nothing is written before the first record. */
export function openEvidence(parts: EvidenceParts): Evidence {
  const { store, settings, logger, replica } = parts;
  const clock = parts.clock ?? systemClock;
  const spill =
    settings.whenUnavailable === "spill" && parts.spillFolder !== undefined
      ? openSpill({ store, folder: parts.spillFolder, maxBytes: settings.spillMaxBytes, logger, clock })
      : undefined;
  const master = once(() => sharedKeyOf(parts, "audit persons"));
  // Who is to go on without a store needs it before that is away.
  if (spill !== undefined) master().catch(() => {});
  const keys = openPersonalKeys(spill?.records ?? store.records, master, clock);
  const signer = once(async () => {
    const made = await signerFor(parts);
    await announce(made, parts);
    return made;
  });
  const chain = openChain({
    signer,
    log: { heads: () => (spill ?? store.audit).heads(), read: (query) => store.audit.read(query) },
    keys: settings.erasable ? keys : undefined,
    checkpointRecords: settings.checkpoint.records,
    checkpointMs: settings.checkpoint.seconds * 1000,
    replica,
    clock,
  });
  const journal = settings.insecureOff
    ? NO_JOURNAL
    : openJournal({
        log: spill ?? store.audit,
        chain,
        settings,
        logger,
        clock,
        ...(parts.clean !== undefined && { clean: parts.clean }),
      });
  return { journal, keys, signer };
}

const nothing = async () => {};
/** Of `audit.insecureOff`. */
const NO_JOURNAL: Journal = {
  append: nothing,
  check() {},
  pending: 0,
  close: nothing,
  [Symbol.asyncDispose]: nothing,
};

/** The keys that what is about persons in this store is encrypted with. */
export function personalKeysOf(parts: Pick<EvidenceParts, "store" | "encryption">): PersonalKeys {
  return openPersonalKeys(
    parts.store.records,
    once(() => sharedKeyOf(parts, "audit persons")),
  );
}

/** Public keys that gateways of this store have signed its log with, as PEM. */
export async function knownSigners(records: Records): Promise<readonly string[]> {
  const rows = await records.list<{ publicKey: string }>(SIGNERS, { limit: 1000 });
  return rows.map(({ value }) => value.publicKey);
}

async function announce({ kid, publicKey }: Signer, { store, signsAs = "any key" }: EvidenceParts): Promise<void> {
  const { records } = store;
  if ((await records.get(SIGNERS, kid)) !== undefined) return;
  if (signsAs === "one that is known" && (await records.list(SIGNERS, { limit: 1 })).length > 0) {
    const message =
      "The gateway signs its audit log with another key than this command would. Name its settings file, and run this with its secrets.";
    throw new DrawbridgeError("settings_invalid", message);
  }
  await records.put(SIGNERS, kid, { publicKey }, { ifVersion: 0 });
}
const SIGNERS = "audit-signer";

/** The key of `audit.signingKey`; without that setting one that all replicas have from the store. */
export async function signerFor({
  settings,
  folder,
  ...rest
}: Pick<EvidenceParts, "settings" | "folder" | "store" | "encryption">): Promise<Signer> {
  if (settings.signingKey === undefined) return signerOfSeed(await sharedKeyOf(rest, "audit signing"));
  const path = resolve(folder, settings.signingKey);
  try {
    return signerOfPem(await readFile(path, "utf8"), `audit.signingKey (${settings.signingKey})`);
  } catch (cause) {
    if (cause instanceof DrawbridgeError) throw cause;
    const message = `audit.signingKey: the file ${settings.signingKey} cannot be read.`;
    throw new DrawbridgeError("settings_invalid", message, { cause });
  }
}

function sharedKeyOf({ store, encryption }: Pick<EvidenceParts, "store" | "encryption">, id: string): Promise<Buffer> {
  return sharedKey(store.records, id, `drawbridge ${id} 1`, encryption);
}

/** What has failed is tried again the next time. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((thrown: unknown) => {
      made = undefined;
      throw thrown;
    });
    return made;
  };
}
