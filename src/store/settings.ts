/** The `store:` setting, where everything that lasts is kept, and `cache:`, where replicas count together. */
import { z } from "zod";
import { Secret, secretField } from "../core/secret.ts";

const KNOWN = /^(memory$|sqlite:.|postgres(ql)?:\/\/|rediss?:\/\/)/;
const WITH_PASSWORD = /^[a-z]+:\/\/[^/?#]*:[^/?#]*@/;
const EXPECTED =
  "expected sqlite:<file>, postgres://…, redis:// or rediss://… (or memory, which forgets everything at exit)";

export const storeSettings = z
  .union([
    z
      .string()
      .regex(KNOWN, EXPECTED)
      .refine((place) => !WITH_PASSWORD.test(place) && !/[?&]password=/.test(place), {
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

const CACHE = /^(memory$|rediss?:\/\/)/;
const CACHE_EXPECTED = "expected memory, redis://… or rediss://…";

export const cacheSettings = z
  .union([
    z
      .string()
      .regex(CACHE, CACHE_EXPECTED)
      .refine((place) => !WITH_PASSWORD.test(place) && !/[?&]password=/.test(place), {
        message: "keep the password out of this file: redis://user:${secret:redis}@host, or ${env:NAME} for all of it",
      }),
    secretField,
  ])
  .refine((place) => !(place instanceof Secret) || CACHE.test(place.reveal()), { message: CACHE_EXPECTED })
  .default("memory")
  .describe(
    "Where `limits` are counted: `memory`, each replica by itself, or `rediss://user:${secret:redis}@host` (Redis 7; `?prefix=` to share a server), all replicas together. While Redis is away each replica counts by itself.",
  );
