/** The key that stand-ins and hashes of all replicas are derived from, and what a command does with it beside them. */
import { Secret } from "../../core/secret.ts";
import { forgetStandInsOf } from "../../mask/tokens.ts";
import type { Records } from "../../store/ports.ts";
import { sharedKey } from "../../store/sealing.ts";

/** `encryption`: `tokens.keyEncryptionSecret`. */
export function maskKey(records: Records, encryption: Secret | undefined): Promise<Buffer> {
  return sharedKey(records, "mask", "drawbridge mask 1", encryption);
}

/** The same as `mask/` takes it. */
export function secretOf(key: Buffer): Secret {
  return new Secret(key.toString("base64url"));
}

/** Forgets every stand-in of a user whose access has ended. A gateway that still knows of one finds out when it is given back. */
export async function forgetStandIns(records: Records, encryption: Secret | undefined, subject: string): Promise<void> {
  await forgetStandInsOf(records, secretOf(await maskKey(records, encryption)), subject);
}
