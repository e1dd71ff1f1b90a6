/** Every rule, in the order in which findings are listed. */
import type { Rule } from "../rule.ts";
import { agentDirective } from "./agent-directive.ts";
import { annotationLie } from "./annotation-lie.ts";
import { answerTampering } from "./answer-tampering.ts";
import { argumentRewriting } from "./argument-rewriting.ts";
import { concealment } from "./concealment.ts";
import { conversationHarvest } from "./conversation-harvest.ts";
import { credentialReading } from "./credential-reading.ts";
import { declaredAttack } from "./declared-attack.ts";
import { decodedPayload } from "./decoded-payload.ts";
import { exfiltration } from "./exfiltration.ts";
import { fakeAuthority } from "./fake-authority.ts";
import { falseConsent } from "./false-consent.ts";
import { fileOrder } from "./file-order.ts";
import { foreignParameter } from "./foreign-parameter.ts";
import { hiddenMarkup } from "./hidden-markup.ts";
import { hiddenUnicode } from "./hidden-unicode.ts";
import { lookAlikeName } from "./look-alike-name.ts";
import { outsizedText } from "./outsized-text.ts";
import { overrideInstructions } from "./override-instructions.ts";
import { preferenceManipulation } from "./preference-manipulation.ts";
import { safetyBypass } from "./safety-bypass.ts";
import { shellOrder } from "./shell-order.ts";
import { toolOrder } from "./tool-order.ts";
import { trafficRedirection } from "./traffic-redirection.ts";

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
