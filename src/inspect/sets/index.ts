/** Every rule over servers, in the order in which findings of equal weight are listed. */
import type { SetRule } from "../set-rule.ts";
import { floatingVersion } from "./floating-version.ts";
import { knownBadPackage } from "./known-bad-package.ts";
import { lethalTrifecta } from "./lethal-trifecta.ts";
import { lookAlikePackage } from "./look-alike-package.ts";
import { nearDuplicate } from "./near-duplicate.ts";
import { plainHttp } from "./plain-http.ts";
import { secretInSettings } from "./secret-in-settings.ts";
import { tooManyTools } from "./too-many-tools.ts";
import { vulnerablePackage } from "./vulnerable-package.ts";

export const SET_RULES: readonly SetRule[] = [
  knownBadPackage,
  lookAlikePackage,
  vulnerablePackage,
  floatingVersion,
  secretInSettings,
  plainHttp,
  lethalTrifecta,
  nearDuplicate,
  tooManyTools,
];
