/** `lock:` in the settings file: which lockfile is trusted, and what becomes of definitions that are not as it says. */
import { z } from "zod";

/** How a definition can differ from the pinned one. One change can be of several classes; the strictest policy of them counts. */
export const DRIFT_CLASSES = [
  "cosmetic",
  "narrowing",
  "widening",
  "output",
  "metadata",
  "annotation-flip",
  "instruction-bearing",
  "new",
  "gone",
] as const;
export type DriftClass = (typeof DRIFT_CLASSES)[number];

/** From the mildest to the strictest. */
export const REACTIONS = ["accept", "hold", "stop"] as const;
export type Reaction = (typeof REACTIONS)[number];

const reaction = (usual: Reaction, meaning: string) => z.enum(REACTIONS).default(usual).describe(meaning);

export const lockSettings = z
  .strictObject({
    file: z
      .string()
      .min(1)
      .optional()
      .describe("The lockfile. Default: `drawbridge.lock` beside the settings file, if it is there."),
    keys: z
      .array(z.string().regex(/^ed25519:[A-Za-z0-9_-]{43}$/, "expected ed25519:… as `drawbridge pin --key` prints it"))
      .max(16)
      .default([])
      .describe(
        "Public keys whose signature makes a lockfile good; one is enough. With a key here there must be a lockfile. To change keys, name both for a while.",
      ),
    unsigned: z
      .literal("accept")
      .optional()
      .describe(
        "Insecure: takes a lockfile that no key of `keys` has signed. Whoever can write the file decides then.",
      ),
    firstSeen: z
      .enum(["pin", "hold"])
      .default("pin")
      .describe(
        "What becomes of a definition of a server that is in no lockfile when it is first seen: `pin` trusts it from then on, `hold` withholds it until somebody approves it.",
      ),
    inspect: z
      .enum(["hold", "off"])
      .default("hold")
      .describe(
        "Whether a new or changed definition that reads like an attack (the verdict `block` of `drawbridge check`) is withheld until somebody approves it, whatever `firstSeen` and `policy` say.",
      ),
    policy: z
      .strictObject({
        cosmetic: reaction("accept", "White space and order; the version that a server says it has."),
        narrowing: reaction("accept", "It provably takes or promises less, and says nothing new."),
        widening: reaction("hold", "It takes what it did not take, or has an argument that it had not."),
        output: reaction("hold", "Its answers may hold what they could not."),
        metadata: reaction("hold", "Icons, `_meta`, execution, and members that MCP does not know."),
        "annotation-flip": reaction("hold", "`readOnlyHint`, `destructiveHint`, `idempotentHint` or `openWorldHint`."),
        "instruction-bearing": reaction(
          "hold",
          "Words that a model reads. New links, hidden characters and orders are held even with `accept`.",
        ),
        new: reaction("hold", "A server of the lockfile offers what the lockfile has not."),
        gone: reaction(
          "accept",
          "A server no longer offers what the lockfile has. There is nothing to hold; it is logged.",
        ),
      })
      .prefault({})
      .describe(
        "For each class of change: `accept` serves it, `hold` withholds the one definition, `stop` withholds everything of its server.",
      ),
  })
  .prefault({})
  .describe("The lockfile: what was reviewed, and what becomes of a definition that differs from it.");

export type LockSettings = z.infer<typeof lockSettings>;
export type DriftPolicy = LockSettings["policy"];
