/** The audit log of a gateway as commands use it: what they change is recorded in a chain of their own, what they read is decrypted. */
import { dirname, resolve } from "node:path";
import { type Evidence, knownSigners, openEvidence } from "../audit/evidence.ts";
import type { AuditRecord } from "../audit/record.ts";
import { auditSettings } from "../audit/settings.ts";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { silentLogger } from "../observe/logger.ts";
import type { Store } from "../store/ports.ts";
import { DEFAULT_FILE, UNREAD } from "./store.ts";
import type { Terminal } from "./terminal.ts";

/** The keys of the log, when this process was given what they are encrypted with. */
export function evidenceOf(
  store: Pick<Store, "audit" | "records">,
  settings: Settings | undefined,
  file: string | undefined,
): Evidence | undefined {
  const encryption = settings?.tokens.keyEncryptionSecret;
  if (encryption?.equals(UNREAD) === true) return undefined;
  return openEvidence({
    store,
    // Whatever the gateway does: a command ends right after its deed, and some deeds cannot be taken back.
    settings: { ...(settings?.audit ?? auditSettings.parse({})), commit: "durable" },
    encryption,
    folder: dirname(resolve(file ?? DEFAULT_FILE)),
    replica: "command line",
    logger: silentLogger,
    signsAs: "one that is known",
  });
}

/** The same. Throws `settings_invalid` where it was not given that. */
export function neededEvidence(...asked: Parameters<typeof evidenceOf>): Evidence {
  const evidence = evidenceOf(...asked);
  if (evidence !== undefined) return evidence;
  throw new DrawbridgeError(
    "settings_invalid",
    "The secret of tokens.keyEncryptionSecret cannot be read here. Run this where the gateway runs, with its secrets.",
  );
}

/**
 * The key that the gateway signs with, where it can be read. The store names keys, too, but so could whoever has written the log anew.
 */
export async function trustedIn(
  store: Pick<Store, "audit" | "records">,
  settings: Settings | undefined,
  file: string | undefined,
  terminal: Terminal,
): Promise<readonly string[]> {
  const known = await knownSigners(store.records);
  if (known.length === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      "Nothing was signed in this store yet, so there is nothing to verify.",
    );
  const evidence = settings && evidenceOf(store, settings, file);
  if (evidence !== undefined) return [(await evidence.signer()).publicKey];
  terminal.stderr.write(
    "The keys that are trusted are those that the store itself names. To be sure, name yours with --key.\n",
  );
  return known;
}

export interface Recorder extends AsyncDisposable {
  /** Rejects with `settings_invalid` where the record could not be signed. */
  append(record: AuditRecord): Promise<void>;
  /** Ends the chain, when anything was written. */
  close(): Promise<void>;
}

/** Records what a command changes. */
export function recorderOf(
  store: Pick<Store, "audit" | "records">,
  settings: Settings | undefined,
  file: string | undefined,
): Recorder {
  let evidence: Evidence | undefined;
  const close = async () => evidence?.journal.close();
  return {
    async append(record) {
      evidence ??= evidenceOf(store, settings, file);
      if (evidence === undefined)
        throw new DrawbridgeError(
          "settings_invalid",
          "The secret of tokens.keyEncryptionSecret cannot be read here, and without it the change cannot be recorded. Run this where the gateway runs, with its secrets.",
        );
      // The journal tries again and again, which a person need not wait for when it is the key that is wrong.
      await evidence.signer();
      await evidence.journal.append(record);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
