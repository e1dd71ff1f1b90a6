/** Pins: what each definition of an upstream looked like when it was first seen or last accepted. */
import { type Definition, pinOf } from "../contract/definition.ts";
import type { JsonObject } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";

export interface Pin {
  readonly server: string;
  readonly kind: string;
  readonly name: string;
  readonly pin: string;
  /** The pinned definition itself, so that a change can be shown. */
  readonly definition: JsonObject;
  readonly since: number;
  /** The newest definition that differs from the pinned one; it is withheld. */
  readonly offered: { readonly pin: string; readonly definition: JsonObject; readonly since: number } | undefined;
}

export interface Pins {
  /** Undefined: the definition is the pinned one, or was seen for the first time and is pinned now. Else why it is withheld. */
  check(definition: Definition, pin?: string): Promise<string | undefined>;
  list(): Promise<readonly Pin[]>;
  /** Makes the offered definition the pinned one; false when there is none. */
  accept(server: string, kind: string, name: string): Promise<boolean>;
}

const KIND = "pin";
const PAGE = 1000;

export function openPins(records: Records, log: Logger, clock: Clock = systemClock): Pins {
  const idOf = (server: string, kind: string, name: string) => `${server}/${kind}/${name}`;
  return {
    async check(definition, pin = pinOf(definition)) {
      const { server, kind, name, value } = definition;
      const id = idOf(server, kind, name);
      // Two rounds: another replica may pin the same definition between our reading and our writing.
      for (let round = 0; round < 2; round++) {
        const row = await records.get<Pin>(KIND, id);
        if (row === undefined) {
          const first: Pin = { server, kind, name, pin, definition: value, since: clock(), offered: undefined };
          if (await records.put(KIND, id, first, { ifVersion: 0 })) return undefined;
          continue;
        }
        if (row.value.pin === pin) return undefined;
        if (row.value.offered?.pin !== pin) {
          const changed: Pin = { ...row.value, offered: { pin, definition: value, since: clock() } };
          await records.put(KIND, id, changed, { ifVersion: row.version });
          log.warn(
            { server, kind, name, pinned: row.value.pin, offered: pin },
            "a definition changed and is withheld; see `drawbridge pins list`",
          );
        }
        return "it changed since it was pinned";
      }
      return "its pin could not be written";
    },
    async list() {
      const pins: Pin[] = [];
      for (let after: string | undefined; ; ) {
        const rows = await records.list<Pin>(KIND, { limit: PAGE, ...(after === undefined ? {} : { after }) });
        pins.push(...rows.map((row) => row.value));
        after = rows.at(-1)?.id;
        if (rows.length < PAGE) return pins;
      }
    },
    async accept(server, kind, name) {
      const row = await records.get<Pin>(KIND, idOf(server, kind, name));
      if (row?.value.offered === undefined) return false;
      const { pin, definition } = row.value.offered;
      return records.put(
        KIND,
        row.id,
        { ...row.value, pin, definition, since: clock(), offered: undefined },
        { ifVersion: row.version },
      );
    },
  };
}
