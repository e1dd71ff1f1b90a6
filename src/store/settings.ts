/** The `store:` setting: where everything that lasts is kept. */
import { z } from "zod";
import { Secret, secretField } from "../core/secret.ts";

const KNOWN = /^(memory$|sqlite:.|postgres(ql)?:\/\/|rediss?:\/\/)/;
const EXPECTED =
  "expected sqlite:<file>, postgres://…, redis:// or rediss://… (or memory, which forgets everything at exit)";

export const storeSettings = z
  .union([
    z
      .string()
      .regex(KNOWN, EXPECTED)
      .refine((place) => !/^[a-z]+:\/\/[^/?#]*:[^/?#]*@/.test(place) && !/[?&]password=/.test(place), {
        message:
          "keep the password out of this file: postgres://user:${secret:database}@host/name, or ${env:NAME} for all of it",
      }),
    secretField,
  ])
  .refine((place) => !(place instanceof Secret) || KNOWN.test(place.reveal()), { message: EXPECTED })
  .default("sqlite:./.drawbridge/drawbridge.db")
  .describe(
    "Where users, grants, pins and the audit log are kept: `sqlite:./drawbridge.db` for one gateway; for several replicas `postgres://user:${secret:database}@host/name?sslmode=verify-full`, or `rediss://user:${secret:redis}@host` (Redis 7 with appendonly; `?prefix=` to share a server). `memory` forgets everything at exit.",
  );
