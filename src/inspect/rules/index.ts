/** Every rule, in the order in which findings are listed. */
import type { Rule } from "../rule.ts";
import { agentDirective } from "./agent-directive.ts";
import { annotationLie } from "./annotation-lie.ts";
import { answerTampering } from "./answer-tampering.ts";
import { anyCommand } from "./any-command.ts";
import { argumentRewriting } from "./argument-rewriting.ts";
import { broadInput } from "./broad-input.ts";
import { concealment } from "./concealment.ts";
import { conversationHarvest } from "./conversation-harvest.ts";
import { credentialReading } from "./credential-reading.ts";
import { declaredAttack } from "./declared-attack.ts";
import { decodedPayload } from "./decoded-payload.ts";
import { executableInput } from "./executable-input.ts";
import { exfiltration } from "./exfiltration.ts";
import { fakeAuthority } from "./fake-authority.ts";
import { falseConsent } from "./false-consent.ts";
import { fileOrder } from "./file-order.ts";
import { foreignParameter } from "./foreign-parameter.ts";
import { hiddenMarkup } from "./hidden-markup.ts";
import { hiddenUnicode } from "./hidden-unicode.ts";
import { lookAlikeName } from "./look-alike-name.ts";
import { openPlace } from "./open-place.ts";
import { outsizedText } from "./outsized-text.ts";
import { overSharing } from "./over-sharing.ts";
import { overrideInstructions } from "./override-instructions.ts";
import { preferenceManipulation } from "./preference-manipulation.ts";
import { safetyBypass } from "./safety-bypass.ts";
import { secretInput } from "./secret-input.ts";
import { shellOrder } from "./shell-order.ts";
import { toolOrder } from "./tool-order.ts";
import { trafficRedirection } from "./traffic-redirection.ts";
import { undescribedOutput } from "./undescribed-output.ts";
import { undocumented } from "./undocumented.ts";
import { unguardedDestruction } from "./unguarded-destruction.ts";
import { unstatedEffect } from "./unstated-effect.ts";

export const RULES: readonly Rule[] = [
  overrideInstructions,
  agentDirective,
  concealment,
  fakeAuthority,
  hiddenMarkup,
  credentialReading,
  exfiltration,
  conversationHarvest,
  toolOrder,
  argumentRewriting,
  answerTampering,
  shellOrder,
  fileOrder,
  trafficRedirection,
  falseConsent,
  safetyBypass,
  preferenceManipulation,
  hiddenUnicode,
  decodedPayload,
  outsizedText,
  annotationLie,
  lookAlikeName,
  foreignParameter,
  declaredAttack,
];

/** What makes a tool careless rather than suspicious. No verdict follows from these. */
export const HYGIENE: readonly Rule[] = [
  executableInput,
  openPlace,
  broadInput,
  undocumented,
  undescribedOutput,
  overSharing,
  unguardedDestruction,
  anyCommand,
  unstatedEffect,
  secretInput,
];
